/**
 * GGUF models that are well formed and say what cannot be: every metadata key with every type, tokenizers whose lists do not fit, parts
 * of different models, headers that would fill the memory. Each ends in an error of ours that names the file, or the model runs.
 */
import assert from "node:assert/strict";
import { execFileSync } from "node:child_process";
import {
  closeSync,
  ftruncateSync,
  mkdtempSync,
  openSync,
  rmSync,
  truncateSync,
  writeFileSync,
  writeSync,
} from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, describe, test } from "node:test";
import { openCheckpointAt } from "../../src/engine/checkpoint-folder.ts";
import { FileSource } from "../../src/engine/file-source.ts";
import { loadModel } from "../../src/engine/load-model.ts";
import { FormatError, FreeholdError, ModelError } from "../../src/errors.ts";
import { openGguf } from "../../src/format/gguf.ts";
import { ggmlTypes } from "../../src/quant/ggml-types.ts";
import { type GgufEntryToWrite, type GgufTensorToWrite, ggufBytes } from "../gguf-bytes.ts";

const scratch = mkdtempSync(join(tmpdir(), "freehold-hostile-gguf-"));
after(() => rmSync(scratch, { recursive: true }));

const original = await readModel(join(import.meta.dirname, "../data/gguf/deepseek4-tiny-f32.gguf"));

interface GgufModel {
  readonly entries: readonly GgufEntryToWrite[];
  readonly tensors: readonly GgufTensorToWrite[];
}

async function readModel(path: string): Promise<GgufModel> {
  const source = await FileSource.open(path);
  try {
    const { metadata, tensors } = await openGguf(source);
    const numbers = new Map([...ggmlTypes].map(([number, type]) => [type, number]));
    return {
      entries: [...metadata].map(([key, { type, value }]) => {
        return { key, type, value: typeof value === "object" ? [...value] : value };
      }),
      tensors: await Promise.all(
        [...tensors.values()].map(async ({ name, shape, type, begin, end }) => {
          return {
            name,
            dims: shape.toReversed(),
            type: numbers.get(type)!,
            data: await source.read(begin, end - begin),
          };
        }),
      ),
    };
  } finally {
    await source.close();
  }
}

/** The model with one entry in place of what stands there; without a value, without the entry. */
function withEntry(key: string, type?: string, value?: unknown): GgufModel {
  const others = original.entries.filter((entry) => entry.key !== key);
  return { ...original, entries: type === undefined ? others : [...others, { key, type, value }] };
}

function write(name: string, { entries, tensors }: GgufModel): string {
  const path = join(scratch, name);
  writeFileSync(path, ggufBytes(entries, tensors));
  return path;
}

/** Keys that a config.json has and a GGUF file has not: no error of ours speaks of them here. */
const foreignKeys =
  /(?<![.\w])(num_hidden_layers|hidden_size|num_attention_heads|num_key_value_heads|head_dim|qk_rope_head_dim|q_lora_rank|o_groups|o_lora_rank|n_routed_experts|num_experts_per_tok|n_shared_experts|moe_intermediate_size|num_hash_layers|norm_topk_prob|routed_scaling_factor|compress_rope_theta|rope_theta|rms_norm_eps|index_n_heads|index_topk|hc_mult|hc_eps|scoring_func|swiglu_limit|max_position_embeddings|layer_types|layers\.\d)/;

/** Opens the file; what is thrown must be ours, name the file and speak its language. Says which of the two it was. */
async function openOrRefuse(path: string, key?: string): Promise<"opened" | "refused"> {
  try {
    const checkpoint = await openCheckpointAt(path);
    await checkpoint.close();
    return "opened";
  } catch (error) {
    assert.ok(error instanceof FreeholdError, `${error}`);
    assert.ok(error.where !== undefined && path.endsWith(error.where), `${error.where} is not the file`);
    assert.ok(error.hint !== undefined);
    assert.doesNotMatch(error.message, foreignKeys);
    assert.doesNotMatch(error.hint, /config\.json/);
    if (error.code === "bad-config" && key !== undefined) assert.ok(error.message.includes(key), error.message);
    return "refused";
  }
}

const strangeValues: readonly (readonly [type: string, value: unknown])[] = [
  ["UINT64", 2n ** 60n],
  ["INT64", -(2n ** 63n)],
  ["INT32", -5],
  ["UINT32", 0],
  ["UINT32", 2 ** 32 - 1],
  ["FLOAT32", Number.NaN],
  ["FLOAT32", Number.POSITIVE_INFINITY],
  ["FLOAT64", 1e300],
  ["STRING", "x"],
  ["BOOL", true],
  ["ARRAY:UINT32", []],
  ["ARRAY:UINT64", [2n ** 60n]],
  ["ARRAY:ARRAY:UINT64", [[2n ** 60n], []]],
];

describe("metadata of a GGUF model", () => {
  const keys = original.entries.map(({ key }) => key).filter((key) => !/ggml\.(tokens|token_type|merges)$/.test(key));
  for (const key of keys) {
    test(`${key} of any type and value, or absent: opened, or refused with the file's name`, async () => {
      const path = write("strange.gguf", withEntry(key));
      // Keys and values have one length: what is wrong of either is told of the keys' one.
      const told = key
        .replace("value_length", "key_length")
        .replace(/^deepseek4\.swiglu_clamp_.*/, "deepseek4.swiglu_clamp");
      await openOrRefuse(path, told);
      for (const [type, value] of strangeValues) {
        write("strange.gguf", withEntry(key, type, value));
        await openOrRefuse(path, told);
      }
    });
  }

  for (const key of ["hyper_connection.epsilon", "expert_weights_scale", "attention.layer_norm_rms_epsilon"]) {
    test(`deepseek4.${key} beyond float32 is refused: every result would be no number`, async () => {
      const path = write("beyond.gguf", withEntry(`deepseek4.${key}`, "FLOAT64", 1e300));
      await assert.rejects(
        openCheckpointAt(path),
        (error) => error instanceof ModelError && /float32/.test(error.message),
      );
    });
  }

  test("keys and values of different lengths are refused: a cached row is both", async () => {
    const path = write("values.gguf", withEntry("deepseek4.attention.value_length", "UINT32", 8));
    await assert.rejects(
      openCheckpointAt(path),
      (error) => error instanceof ModelError && /values of 8/.test(error.message),
    );
  });

  test("a block number has one spelling: blk.00 is no second name of blk.0", async () => {
    const [first] = original.tensors.filter(({ name }) => name === "blk.0.attn_norm.weight");
    const tensors = [...original.tensors, { ...first!, name: "blk.00.attn_norm.weight" }];
    const path = write("spelling.gguf", { ...original, tensors });
    await assert.rejects(
      openCheckpointAt(path),
      (error) => error instanceof ModelError && /blk\.00/.test(error.message),
    );
  });
});

describe("a tokenizer whose lists do not fit", () => {
  const list = (key: string) => original.entries.find((entry) => entry.key === key)!.value as readonly unknown[];
  const pre = { key: "tokenizer.ggml.pre", type: "STRING", value: "deepseek-v3" };
  const cases: readonly { what: string; model: GgufModel; says: RegExp }[] = [
    {
      what: "types for fewer tokens",
      model: withEntry("tokenizer.ggml.token_type", "ARRAY:INT32", list("tokenizer.ggml.token_type").slice(1)),
      says: /token_type has 319 entries for 320 tokens/,
    },
    { what: "no merges", model: withEntry("tokenizer.ggml.merges"), says: /merges is missing/ },
    { what: "merges that are a number", model: withEntry("tokenizer.ggml.merges", "UINT32", 1), says: /no list/ },
    {
      what: "names that are not UTF-8",
      model: withEntry(
        "tokenizer.ggml.tokens",
        "ARRAY:STRING",
        list("tokenizer.ggml.tokens").map((name, i) => (i < 260 ? name : Uint8Array.of(0xff, i & 127))),
      ),
      says: /is not written in byte letters/,
    },
    { what: "a kind of 2^60", model: withEntry("tokenizer.ggml.model", "UINT64", 2n ** 60n), says: /not supported/ },
  ];
  for (const { what, model, says } of cases) {
    test(`${what}: the model works on token ids, and the error for text says why`, async () => {
      const entries = [...model.entries.filter(({ key }) => key !== pre.key), pre];
      using loaded = await loadModel(write("tokenizer.gguf", { ...model, entries }), { contextLength: 64 });
      assert.match(loaded.notes.join(), says);
      assert.equal((await loaded.complete([2, 3], { maxTokens: 1 })).tokenIds.length, 1);
      await assert.rejects(loaded.complete("text"), (error) => error instanceof ModelError && says.test(error.message));
    });
  }
});

describe("parts of a split model", () => {
  const part = (no: number, changes: readonly GgufEntryToWrite[] = []): GgufModel => {
    const half = Math.ceil(original.tensors.length / 2);
    const numbers: GgufEntryToWrite[] = [
      { key: "split.no", type: "UINT16", value: no },
      { key: "split.count", type: "UINT16", value: 2 },
      { key: "split.tensors.count", type: "INT32", value: original.tensors.length },
    ];
    const own = [...(no === 0 ? original.entries : []), ...numbers].filter(
      ({ key }) => !changes.some((change) => change.key === key),
    );
    return { entries: [...own, ...changes], tensors: original.tensors.slice(no * half, (no + 1) * half) };
  };
  const names = ["m-00001-of-00002.gguf", "m-00002-of-00002.gguf"] as const;

  test("are one model", async () => {
    for (const [i, name] of names.entries()) write(name, part(i));
    assert.equal(await openOrRefuse(join(scratch, names[0])), "opened");
  });

  for (const change of [
    { key: "split.tensors.count", type: "INT32", value: 4 },
    { key: "split.count", type: "UINT16", value: 3 },
    { key: "general.architecture", type: "STRING", value: "llama" },
    { key: "deepseek4.block_count", type: "UINT64", value: 2n ** 60n },
  ]) {
    test(`whose ${change.key} differs are refused, with the name of the part`, async () => {
      write(names[0], part(0));
      write(names[1], part(1, [change]));
      const isSaid = (error: unknown) => error instanceof ModelError && error.where === names[1];
      await assert.rejects(openCheckpointAt(join(scratch, names[0])), isSaid);
    });
  }

  test("of which one is missing are refused, with its name", async () => {
    const path = write("n-00001-of-00002.gguf", part(0));
    await assert.rejects(openCheckpointAt(path), { code: "bad-split", where: "n-00002-of-00002.gguf" });
  });

  test("that each repeat a whole vocabulary are compared in no time", async () => {
    const tokens = {
      key: "tokenizer.ggml.tokens",
      type: "ARRAY:STRING",
      value: Array.from({ length: 20_000 }, (_, i) => `t${i}`),
    };
    const count = 40;
    const paths = Array.from({ length: count }, (_, i) => {
      const numbers = [
        { key: "split.no", type: "UINT16", value: i },
        { key: "split.count", type: "UINT16", value: count },
        { key: "split.tensors.count", type: "INT32", value: 1 },
      ];
      const name = `many-${String(i + 1).padStart(5, "0")}-of-00040.gguf`;
      return write(name, { entries: [...numbers, tokens], tensors: i === 0 ? original.tensors.slice(0, 1) : [] });
    });
    const readHeaders = async () => {
      const started = performance.now();
      for (const path of paths) {
        const source = await FileSource.open(path);
        await openGguf(source).finally(() => source.close());
      }
      return performance.now() - started;
    };
    await readHeaders();
    const alone = await readHeaders();
    const started = performance.now();
    await assert.rejects(openCheckpointAt(paths[0]!), { code: "unsupported-architecture" });
    const together = performance.now() - started;
    assert.ok(together < 3 * alone, `${together} ms, the headers alone take ${alone}`);
  });

  test("with another name than its metadata say are refused, with the name that is needed", async () => {
    const path = write("renamed.gguf", part(0));
    await assert.rejects(
      openCheckpointAt(path),
      (error) => error instanceof ModelError && /00001-of/.test(error.hint!),
    );
  });
});

describe("what is no file of a sane size", () => {
  /** A header whose one value claims `count` elements, in a file of zeros that is large enough for them. */
  function sparse(elementType: number, count: number, fileBytes: number): string {
    const path = join(scratch, "sparse.gguf");
    const [begin, key] = [ggufBytes([]).subarray(0, 16), Buffer.from([1, 0, 0, 0, 0, 0, 0, 0, 97])];
    const entries = Buffer.alloc(8, 0);
    entries[0] = 1;
    const value = Buffer.alloc(16);
    value.writeUInt32LE(9, 0);
    value.writeUInt32LE(elementType, 4);
    value.writeBigUInt64LE(BigInt(count), 8);
    const file = openSync(path, "w");
    writeSync(file, Buffer.concat([begin, entries, key, value]));
    ftruncateSync(file, fileBytes);
    closeSync(file);
    return path;
  }

  for (const [what, elementType, count] of [
    ["bytes", 0, 900_000_000],
    ["empty texts", 8, 120_000_000],
    ["empty lists", 9, 80_000_000],
  ] as const) {
    test(`${count} ${what} in a list are refused before they are made`, { timeout: 20_000 }, async () => {
      const path = sparse(elementType, count, 2 ** 30);
      await assert.rejects(
        openCheckpointAt(path),
        (error) => error instanceof FormatError && error.where === "sparse.gguf",
      );
    });
  }

  for (const [what, counts] of [
    ["tensors", [2_000_000n, 0n]],
    ["metadata entries", [0n, 3_000_000n]],
  ] as const) {
    test(`${counts.find((count) => count > 0)} ${what} in a file that has room for them are refused before they are read`, async () => {
      const path = join(scratch, "many.gguf");
      const counted = Buffer.alloc(16);
      counts.forEach((count, i) => {
        counted.writeBigUInt64LE(count, 8 * i);
      });
      writeFileSync(path, Buffer.concat([ggufBytes([]).subarray(0, 8), counted]));
      truncateSync(path, 64 << 20);
      await assert.rejects(openCheckpointAt(path), { code: "too-many", where: "many.gguf" });
    });
  }

  const skip = process.platform === "win32" && "Windows has no pipe with a path in a folder";
  test("a pipe is refused at once, also one that nobody writes", { timeout: 20_000, skip }, async () => {
    const path = join(scratch, "pipe.gguf");
    execFileSync("mkfifo", [path]);
    await assert.rejects(
      openCheckpointAt(path),
      (error) => error instanceof ModelError && /regular/.test(error.message),
    );
  });
});
