import assert from "node:assert/strict";
import { describe, test } from "node:test";
import fc from "fast-check";
import { dialects } from "../../src/chat/dialect.ts";
import { printJson } from "../../src/chat/print-json.ts";
import { fromJson, toJson } from "../../src/chat/read-json.ts";
import { FormatError, RequestError } from "../../src/errors.ts";
import { type Json, JsonNumber, type JsonObject, JsonReader, parseJson } from "../../src/json/parse-json.ts";

describe("JSON with nothing lost", () => {
  test("agrees with JSON.parse on every value that it writes", () => {
    fc.assert(
      fc.property(fc.jsonValue({ maxDepth: 5 }), (value) => {
        const text = JSON.stringify(value);
        assert.deepEqual(fromJson(parseJson(text)), JSON.parse(text));
      }),
      { numRuns: 500 },
    );
  });

  test("accepts and refuses the same texts as JSON.parse", () => {
    const pieces = fc.constantFrom(
      "{",
      "}",
      "[",
      "]",
      '"',
      ":",
      ",",
      "1",
      "-",
      ".",
      "e",
      "0",
      "true",
      "nul",
      "null",
      " ",
      "\\u00",
      "\\n",
      "a",
      "\t",
      "\u0001",
    );
    fc.assert(
      fc.property(fc.array(pieces, { maxLength: 8 }), (parts) => {
        const text = parts.join("");
        let expected = true;
        try {
          JSON.parse(text);
        } catch {
          expected = false;
        }
        let found = true;
        try {
          parseJson(text);
        } catch (error) {
          assert.ok(error instanceof FormatError);
          found = false;
        }
        assert.equal(found, expected, text);
      }),
      { numRuns: 5000, seed: 11 },
    );
  });

  test("takes as many values as it may, and not one more, before and while they are built", () => {
    const isContainer = (value: unknown) => typeof value === "object" && value !== null;
    const count = (value: unknown, counts = (_: unknown) => true): number => {
      const own = counts(value) ? 1 : 0;
      if (!isContainer(value)) return own;
      return Object.values(value as object).reduce<number>((sum, one) => sum + count(one, counts), own);
    };
    const countKeys = (value: unknown): number => {
      if (!isContainer(value)) return 0;
      const own = Array.isArray(value) ? 0 : Object.keys(value as object).length;
      return Object.values(value as object).reduce<number>((sum, one) => sum + countKeys(one), own);
    };
    // Brackets, commas and quotes inside strings are no values.
    const strings = fc.string({ unit: fc.constantFrom(...'[]{},:"\\ a') });
    const values = fc.letrec((tie) => ({
      any: fc.oneof({ depthSize: "small" }, strings, fc.constantFrom(1, null), tie("list"), tie("object")),
      list: fc.array(tie("any"), { maxLength: 4 }),
      object: fc.dictionary(strings, tie("any"), { maxKeys: 4 }),
    })).any;
    fc.assert(
      fc.property(values, fc.constantFrom("", "  "), (value, space) => {
        const text = space + JSON.stringify(value, undefined, space);
        const maxValues = count(value);
        const maxParts = count(value, isContainer) + countKeys(value);
        parseJson(text, { maxValues, maxParts });
        // Behind a text of spaces the count is sure to be smaller than the text.
        const behind = " ".repeat(50) + text;
        assert.throws(() => parseJson(behind, { maxValues: maxValues - 1 }), /more than \d+ values/);
        if (maxParts === 0) return;
        assert.throws(() => parseJson(behind, { maxParts: maxParts - 1 }), /more than \d+ objects, lists and keys/);
      }),
      { numRuns: 1000, seed: 5 },
    );
  });

  /** Characters that begin and end things; whole escapes, halves of them, and characters of two units. */
  const marks = [
    "{",
    "}",
    "[",
    "]",
    '"',
    ":",
    ",",
    " ",
    "\\",
    "\\n",
    "\\u00e9",
    "\\ud83d",
    "\\ude00",
    "\\u12",
    "\t",
    "\0",
  ];
  const others = [
    "-",
    "0",
    "1",
    ".",
    "e",
    "9e999",
    "true",
    "fal",
    "null",
    "é",
    "𝒳",
    "\u2028",
    "__proto__",
    '"__proto__":1,',
  ];
  const piecesOfText = fc.constantFrom(...marks, ...others);
  /** JSON, JSON with one character put in place of another, and what no JSON is. */
  const texts = fc.oneof(
    fc.json(),
    fc.tuple(fc.json(), fc.nat(), piecesOfText).map(([json, at, mark]) => {
      const characters = [...json];
      characters[at % (characters.length + 1)] = mark;
      return characters.join("");
    }),
    fc.array(piecesOfText, { maxLength: 12 }).map((all) => all.join("")),
  );
  /** The value or what is wrong with the text, when it comes in pieces of so many characters. */
  const outcomeOf = (text: string, sizes: readonly number[], values = Number.POSITIVE_INFINITY): unknown => {
    const reader = new JsonReader();
    const characters = [...text];
    try {
      for (let at = 0, i = 0; at < characters.length; i++) {
        const size = sizes[i % sizes.length]!;
        reader.give(characters.slice(at, at + size).join(""), false);
        while (!reader.advance(values)) assert.equal(reader.value, undefined);
        at += size;
      }
      reader.give("", true);
      while (!reader.advance(values)) assert.equal(reader.value, undefined);
      return reader.value;
    } catch (error) {
      assert.ok(error instanceof FormatError);
      return error.message;
    }
  };

  test("reads the same in pieces of any size, and refuses the same at the same place", () => {
    const property = fc.property(
      texts,
      fc.array(fc.integer({ min: 1, max: 9 }), { minLength: 1, maxLength: 9 }),
      fc.integer({ min: 1, max: 7 }),
      (text, sizes, values) => {
        const whole = outcomeOf(text, [text.length + 1]);
        assert.deepEqual(outcomeOf(text, sizes, values), whole, JSON.stringify(text));
        let expected: unknown;
        try {
          expected = JSON.parse(text);
        } catch {
          assert.equal(typeof whole, "string", JSON.stringify(text));
          assert.match(whole as string, /^Not JSON: /);
          return;
        }
        assert.deepEqual(fromJson(whole as Json), expected, JSON.stringify(text));
      },
    );
    fc.assert(property, { numRuns: 10_000, seed: 3 });
  });

  test("puts the halves of a pair together wherever a piece ends, and half a one becomes U+FFFD where that is asked for", () => {
    const text = String.raw`{"\ud83d\ude00":"a\ud83d","b":"\ude00\ud83d\n\\ud83d"}`;
    const expected = { "😀": "a\ufffd", b: "\ufffd\ufffd\n\\ud83d" };
    for (let at = 0; at <= text.length; at++) {
      const reader = new JsonReader({}, { repairsStrings: true });
      for (const [piece, isLast] of [[text.slice(0, at), false] as const, [text.slice(at), true] as const]) {
        reader.give(piece, isLast);
        assert.ok(reader.advance());
      }
      assert.deepEqual(fromJson(reader.value), expected, `cut at ${at}`);
    }
  });

  test("refuses a number without an end", () => {
    assert.equal((parseJson("1".repeat(65_536)) as JsonNumber).value, Number.POSITIVE_INFINITY);
    assert.throws(() => parseJson("1".repeat(65_537)), /a number is longer than 65536 characters at character 0/);
  });

  test("keeps the text of numbers, the order of keys, and keys that stand twice", () => {
    const value = parseJson('{"2": 1.0, "1": 18446744073709551615, "2": -0}') as JsonObject;
    assert.deepEqual(
      value.entries.map(([key, item]) => [key, (item as JsonNumber).text]),
      [
        ["2", "1.0"],
        ["1", "18446744073709551615"],
        ["2", "-0"],
      ],
    );
    assert.equal(value.duplicateKey(), "2");
  });

  test("twenty thousand levels of nesting are an error, not a crash", () => {
    for (const text of ["[".repeat(20_000), '{"a":'.repeat(20_000)]) assert.throws(() => parseJson(text), FormatError);
    let nested: unknown = 1;
    for (let i = 0; i < 20_000; i++) nested = [nested];
    assert.throws(() => toJson(nested, "request"), RequestError);
  });
});

describe("JSON in prompts", () => {
  const rows: [string, string, string][] = [
    ["1.0", "1.0", "1.0"],
    ["1", "1", "1"],
    ["-0", "-0.0", "-0.0"],
    ["1e16", "1e+16", "1e+16"],
    ["123456.789", "123456.789", "123456.789"],
    ["1e-5", "0.00001", "1e-05"],
    ["1e-6", "1e-6", "1e-06"],
    ["0.0001", "0.0001", "0.0001"],
    ["100000.0", "100000.0", "100000.0"],
    ["1.5e300", "1.5e+300", "1.5e+300"],
    ["-0.0", "-0.0", "-0.0"],
    ["18446744073709551615", "18446744073709551615", "18446744073709551615"],
    ["18446744073709551616", "1.8446744073709552e+19", "1.8446744073709552e+19"],
    ["-9223372036854775808", "-9223372036854775808", "-9223372036854775808"],
    ['"\\u007f\\u0001é\\/\\u2028"', '"\u007f\\u0001é/\u2028"', '"\u007f\\u0001é/\u2028"'],
    ['{"a":[1,{}],"a":2}', '{"a": 2}', '{"a": 2}'],
  ];
  for (const [text, v4, v41] of rows) {
    test(`${text} is written ${v4} and ${v41}`, () => {
      assert.equal(printJson(parseJson(text), dialects.v4), v4);
      assert.equal(printJson(parseJson(text), dialects["v4.1"]), v41);
    });
  }

  test("what is printed reads back as the same value", () => {
    fc.assert(
      fc.property(fc.jsonValue({ maxDepth: 4 }), (value) => {
        for (const dialect of Object.values(dialects)) {
          const back = JSON.parse(printJson(toJson(value, "x"), dialect));
          assert.deepEqual(back, structuredClone(value)); // a clone keeps -0, which JSON.stringify writes as 0
        }
      }),
    );
  });

  test("a number that no double can hold is refused", () => {
    assert.throws(() => printJson(new JsonNumber("1e400"), dialects.v4), RequestError);
  });
});
