import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { join } from "node:path";
import { describe, test } from "node:test";
import fc from "fast-check";
import { FormatError, RequestError } from "../../src/errors.ts";
import { deepseekPatterns, splitWords } from "../../src/tokenizer/split-words.ts";
import { Tokenizer } from "../../src/tokenizer/tokenizer.ts";

const json = JSON.parse(readFileSync(join(import.meta.dirname, "../../assets/seed-v4/tokenizer.json"), "utf8"));
const tokenizer = Tokenizer.fromJson(json);

/** Well-formed text with everything that the rules treat differently. */
const text = fc.oneof(
  fc.string({ unit: "grapheme" }),
  fc
    .array(
      fc.constantFrom(
        "a",
        "Bc",
        "1",
        "234",
        " ",
        "  ",
        "\n",
        "\r\n",
        "\t",
        "中",
        "ひ",
        "カ・",
        "é",
        "e\u0301",
        "!",
        "？",
        "🦀",
        "\u0000",
        "\ufeff",
        "<｜User｜>",
        "</think>",
        "x".repeat(50),
      ),
    )
    .map((parts) => parts.join("")),
);

describe("tokenizer", () => {
  test("any well-formed text reads back", () => {
    fc.assert(
      fc.property(text, (value) => {
        const wellFormed = value.toWellFormed();
        assert.equal(tokenizer.decode(tokenizer.encode(wellFormed)), wellFormed);
        assert.equal(tokenizer.decode(tokenizer.encode(wellFormed, { special: true })), wellFormed);
      }),
      { numRuns: 1000, seed: 9 },
    );
  });

  test("text never becomes an added token unless it is asked for", () => {
    fc.assert(
      fc.property(text, (value) => {
        assert.ok(tokenizer.encode(value).every((id) => !tokenizer.isAdded(id)));
      }),
      { numRuns: 500 },
    );
    const user = tokenizer.tokenId("<｜User｜>")!;
    assert.deepEqual(tokenizer.encode("<｜User｜>", { special: true }), [user]);
    assert.ok(!tokenizer.encode("<｜User｜>").includes(user));
  });

  test("a stream of tokens gives the same text in pieces of whole characters", () => {
    fc.assert(
      fc.property(fc.array(fc.nat(tokenizer.vocabSize - 1), { maxLength: 40 }), (ids) => {
        const decoder = tokenizer.createDecoder();
        const pieces = ids.map((id) => decoder.push(id));
        for (const piece of pieces) assert.ok(piece.isWellFormed());
        assert.equal(pieces.join("") + decoder.end(), tokenizer.decode(ids));
      }),
      { numRuns: 1000, seed: 10 },
    );
  });

  test("a lone surrogate counts as U+FFFD", () => {
    assert.equal(tokenizer.decode(tokenizer.encode("a\ud800b")), "a\ufffdb");
  });

  test("an id that no token has is refused by number", () => {
    for (const id of [-1, 4096, 1.5, Number.NaN]) assert.throws(() => tokenizer.decode([id]), RequestError);
  });

  test("the splitting rules are those of the file's regular expressions (ASCII, Latin and CJK text)", () => {
    // On characters whose classes all Unicode versions share, JavaScript's engine can check the hand-written rules.
    const unit = fc.constantFrom(
      "a",
      "Z",
      "1",
      " ",
      "\n",
      "\r",
      "\t",
      "!",
      "-",
      "é",
      "中",
      "ぁ",
      "ア",
      "・",
      "\u0301",
      "\u0001",
      "€",
      "“",
    );
    fc.assert(
      fc.property(fc.array(unit, { maxLength: 14 }), (units) => {
        const value = units.join("");
        const pieces: string[] = [];
        splitWords(value, (start, end) => pieces.push(value.slice(start, end)));
        assert.deepEqual(pieces, splitByPatterns(value));
      }),
      { numRuns: 5000, seed: 12 },
    );
  });

  test("a long word, a long line of signs and a long run of blanks take no more than linear memory", () => {
    for (const unit of ["a", "!", " ", "\n", "<", "中", "1"]) {
      const value = unit.repeat(300_000);
      assert.equal(tokenizer.decode(tokenizer.encode(value, { special: true })), value);
    }
  });
});

/** The three patterns, one after another, each match and each text between matches a piece. */
function splitByPatterns(value: string): string[] {
  let pieces = [value];
  for (const pattern of deepseekPatterns) {
    // \s differs in two characters that are not in the test's alphabet.
    pieces = pieces.flatMap((piece) => {
      const parts: string[] = [];
      let done = 0;
      for (const match of piece.matchAll(new RegExp(unicodePattern(pattern), "gu"))) {
        if (match.index > done) parts.push(piece.slice(done, match.index));
        parts.push(match[0]);
        done = match.index + match[0].length;
      }
      if (done < piece.length) parts.push(piece.slice(done));
      return parts;
    });
  }
  return pieces;
}

/** With the u flag, JavaScript allows fewer escapes than the file uses. */
function unicodePattern(pattern: string): string {
  return pattern.replace("[!\"#$%&'()*+,\\-./:;<=>?@\\[\\\\\\]^_`{|}~]", "[!-/:-@\\[-`{-~]");
}

describe("tokenizer.json", () => {
  const change = (edit: (file: typeof json) => void) => {
    const file = structuredClone(json);
    edit(file);
    return () => Tokenizer.fromJson(file);
  };
  const rows: [string, () => Tokenizer, RegExp][] = [
    [
      "a model of another type",
      change((f) => {
        f.model.type = "Unigram";
      }),
      /Unigram/,
    ],
    [
      "a merge of an unknown token",
      change((f) => {
        f.model.merges[5] = ["nope", "x"];
      }),
      /merge 5 names "nope"/,
    ],
    [
      "a merge of one token",
      change((f) => {
        f.model.merges[5] = "x";
      }),
      /merge 5/,
    ],
    [
      "two tokens with one id",
      change((f) => {
        f.model.vocab.Ġthe = 5;
      }),
      /two tokens have the id 5/,
    ],
    [
      "an id out of range",
      change((f) => {
        f.model.vocab.Ġthe = -1;
      }),
      /Ġthe.*-1/,
    ],
    [
      "a byte without a token",
      change((f) => {
        delete f.model.vocab["!"];
      }),
      /"!"|byte 33/,
    ],
    [
      "another splitting rule",
      change((f) => {
        f.pre_tokenizer.pretokenizers[0].pattern.Regex = "\\d+";
      }),
      /\\\\d\+/,
    ],
    [
      "a normaliser",
      change((f) => {
        f.normalizer = { type: "NFKC" };
      }),
      /NFKC/,
    ],
    [
      "an added token that strips",
      change((f) => {
        f.added_tokens[0].lstrip = true;
      }),
      /lstrip/,
    ],
    [
      "no vocabulary",
      change((f) => {
        f.model.vocab = 5;
      }),
      /model\.vocab is not an object/,
    ],
  ];
  for (const [what, make, pattern] of rows) {
    test(`with ${what} is refused by name`, () => {
      assert.throws(make, (error) => error instanceof FormatError && pattern.test(error.message));
    });
  }
  test("of any JSON is read or refused with a FormatError", () => {
    fc.assert(
      fc.property(
        fc.constantFrom("model", "added_tokens", "pre_tokenizer", "normalizer", "decoder"),
        fc.jsonValue(),
        (key, value) => {
          try {
            Tokenizer.fromJson({ ...json, [key]: value });
          } catch (error) {
            assert.ok(error instanceof FormatError, `${error}`);
          }
        },
      ),
      { numRuns: 200 },
    );
  });
  test("with merges as pairs or as text is the same", () => {
    const asText = structuredClone(json);
    asText.model.merges = asText.model.merges.map((merge: string | [string, string]) =>
      typeof merge === "string" ? merge : merge.join(" "),
    );
    const value = "The quick brown fox, 12345 中文";
    assert.deepEqual(Tokenizer.fromJson(asText).encode(value), tokenizer.encode(value));
  });
});

describe("text that is encoded slice by slice", () => {
  const stretches = [
    "a",
    "word ",
    "Ünïcode-",
    "先想",
    "中a",
    "1234",
    "!?",
    " ",
    "\n",
    "\r\n  x",
    "🙂",
    "e\u0301",
    "\u0007",
    "a先 \n9",
  ];
  const long = fc
    .array(fc.tuple(fc.constantFrom(...stretches), fc.integer({ min: 1, max: 60_000 })), { minLength: 1, maxLength: 6 })
    .map((parts) => parts.map(([stretch, length]) => stretch.repeat(Math.ceil(length / stretch.length))).join(""));

  test("has the ids of the whole, in slices of a bounded length", () => {
    fc.assert(
      fc.property(long, (whole) => {
        const slices = [...tokenizer.encodeInSlices(whole)];
        assert.ok(slices.flat().every((id, i, ids) => ids.length > i && tokenizer.has(id)));
        assert.deepEqual(slices.flat(), tokenizer.encode(whole));
        for (const slice of slices) assert.ok(slice.length <= 4 * 65_536, `${slice.length} ids`); // four bytes a character
      }),
      { numRuns: 60, seed: 2 },
    );
  });

  test("with special tokens in it has the ids of the whole", () => {
    const spelled = fc.constantFrom("<｜User｜>", "</think>", "<｜", "<", "Hello, world ", "x".repeat(70_000), "先生 ");
    fc.assert(
      fc.property(fc.array(spelled, { maxLength: 12 }), (pieces) => {
        const text = pieces.join("");
        const ids = [...tokenizer.encodeInSlices(text, { special: true })].flat();
        assert.deepEqual(ids, tokenizer.encode(text, { special: true }));
      }),
      { numRuns: 40, seed: 3 },
    );
  });

  test("a word of 260,000 letters is merged in many steps; a longer one is refused, and the error says why", () => {
    const word = "abcdefghij".repeat(26_000);
    const slices = [...tokenizer.encodeInSlices(word)];
    assert.ok(slices.length > 4, `${slices.length}`);
    assert.deepEqual(slices.flat(), tokenizer.encode(word));
    const refused = () => [...tokenizer.encodeInSlices("先".repeat(2 ** 18 + 1))];
    assert.throws(refused, (error: unknown) => error instanceof RequestError && error.code === "word-too-long");
  });
});
