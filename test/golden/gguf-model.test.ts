/** A tiny DeepSeek-V4 model in GGUF, plain and quantised, against transformers' logits on the (dequantised) weights. */
import assert from "node:assert/strict";
import { copyFileSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, describe, test } from "node:test";
import { openCheckpointAt } from "../../src/engine/checkpoint-folder.ts";
import { tokenizerOfGguf } from "../../src/engine/gguf-tokenizer.ts";
import { type LoadOptions, loadModel } from "../../src/engine/load-model.ts";
import { FormatError, ModelError } from "../../src/errors.ts";
import { MemorySource } from "../../src/format/byte-source.ts";
import { openGguf } from "../../src/format/gguf.ts";
import { type GgufEntryToWrite, ggufBytes } from "../gguf-bytes.ts";
import { kernelBodiesHere } from "../kernel-devices.ts";
import { deepseekTokenizer, readGzippedJson } from "./deepseek-tokenizer.ts";
import { readStoredTensors } from "./v4-case.ts";

const folder = join(import.meta.dirname, "../data/gguf");
const scratch = mkdtempSync(join(tmpdir(), "freehold-gguf-"));
after(() => rmSync(scratch, { recursive: true }));

function load(name: string, options: LoadOptions) {
  return loadModel(join(folder, `deepseek4-tiny-${name}.gguf`), options);
}

/** Prompts, and logits at all of their positions or at every 16th. */
function storedLogits(name: string) {
  const stored = readStoredTensors(join(folder, `logits-${name}.safetensors`));
  return ["prompt0", "prompt1"].map((prompt) => {
    const ids = [...stored.get(`${prompt}.tokens`)!.data];
    const { shape, data } = stored.get(`${prompt}.logits`)!;
    const [count, vocabSize] = shape as [number, number];
    const stride = count === ids.length ? 1 : 16;
    const rows = Array.from({ length: count }, (_, row) => ({
      position: row * stride,
      expected: data.subarray(row * vocabSize, (row + 1) * vocabSize),
    }));
    return { ids, rows };
  });
}

/** Kullback-Leibler divergence of the distributions behind two rows of logits, in nats. */
function divergence(p: ArrayLike<number>, q: ArrayLike<number>): number {
  const logSum = (x: ArrayLike<number>) => Math.log(Array.from(x).reduce((sum, v) => sum + Math.exp(v), 0));
  const [a, b] = [logSum(p), logSum(q)];
  return Array.from(p).reduce((sum, v, i) => sum + Math.exp(v - a) * (v - a - (q[i]! - b)), 0);
}

/** The likeliest token, 16 times in turn. */
async function greedyContinuation(
  model: Awaited<ReturnType<typeof load>>,
  prompt: readonly number[],
): Promise<number[]> {
  const ids = [...prompt];
  for (let i = 0; i < 16; i++) {
    const last = (await model.logits(ids)).at(-1)!;
    ids.push(last.indexOf(Math.max(...last)));
  }
  return ids.slice(prompt.length);
}

describe("the GGUF model", () => {
  describe("mixed, continued greedily with float32 activations", async () => {
    const prompts = storedLogits("mixed").map(({ ids }) => ids.slice(0, 24));
    using reference = await load("mixed", { device: "reference" }); // computes with the dequantised weights
    const expected: number[][] = [];
    for (const prompt of prompts) expected.push(await greedyContinuation(reference, prompt));
    for (const { device, instructions } of kernelBodiesHere) {
      test(`on ${device} ${instructions}: gives the tokens of the reference with dequantised weights`, async () => {
        using model = await load("mixed", { device, instructions, activations: "float32" });
        for (const [i, prompt] of prompts.entries())
          assert.deepEqual(await greedyContinuation(model, prompt), expected[i], `prompt ${i}`);
      });
    }
  });

  for (const { device, instructions } of kernelBodiesHere) {
    for (const name of ["f32", "mixed"]) {
      test(`${name} on ${device} ${instructions}, float32 activations: its logits are those of transformers`, async () => {
        // The reference computed with the dequantised weights, as float32 activations do.
        using model = await load(name, { device, instructions, activations: "float32" });
        let compared = 0;
        for (const { ids, rows } of storedLogits(name)) {
          const logits = await model.logits(ids);
          for (const { position, expected } of rows) {
            expected.forEach((value, v) => {
              const found = logits[position]![v]!;
              assert.ok(
                Math.abs(found - value) <= 1e-4 * (1 + Math.abs(value)),
                `position ${position}, token ${v}: ${found}, expected ${value}`,
              );
              compared++;
            });
          }
        }
        assert.ok(compared > 10_000);
      });
    }

    test(`mixed on ${device} ${instructions}, int8 activations: the distribution of the next token is close`, async () => {
      using model = await load("mixed", { device, instructions, activations: "int8" });
      const divergences: number[] = [];
      for (const { ids, rows } of storedLogits("mixed")) {
        const logits = await model.logits(ids);
        for (const { position, expected } of rows) divergences.push(divergence(expected, logits[position]!));
      }
      const mean = divergences.reduce((a, b) => a + b, 0) / divergences.length;
      // llama.cpp's int8 activations are at 0.017 on this file.
      assert.ok(mean <= 0.02, `mean Kullback-Leibler divergence ${mean}`);
    });
  }

  test("its two files describe the same model", async () => {
    const [f32, mixed] = await Promise.all(
      ["f32", "mixed"].map((name) => openCheckpointAt(join(folder, `deepseek4-tiny-${name}.gguf`))),
    );
    assert.deepEqual(mixed!.config, f32!.config);
    assert.deepEqual(mixed!.config.compressRatios, [0, 0, 4, 128, 4]);
    assert.deepEqual(
      new Set(mixed!.tensors.map(({ dtype }) => dtype)),
      new Set(["F32", "BF16", "Q8_0", "MXFP4", "I32"]),
    );
    await Promise.all([f32!.close(), mixed!.close()]);
  });

  test("cut anywhere is refused with one clear error", async () => {
    const bytes = readFileSync(join(folder, "deepseek4-tiny-mixed.gguf"));
    const path = join(scratch, "cut.gguf");
    for (const length of [3, 100, 5000, 12_000, bytes.length - 40]) {
      writeFileSync(path, bytes.subarray(0, length));
      await assert.rejects(loadModel(path), (error) => error instanceof FormatError && error.where === "cut.gguf");
    }
  });

  test("of another architecture, or a part of a split model without the others, is refused by name", async () => {
    await assert.rejects(
      openCheckpointAt(join(folder, "block-types.gguf")),
      (error) => error instanceof ModelError && /"test"/.test(error.message),
    );
    await assert.rejects(
      openCheckpointAt(join(folder, "split-00002-of-00002.gguf")),
      (error) => error instanceof ModelError && /first part/.test(error.message),
    );
    copyFileSync(join(folder, "split-00001-of-00002.gguf"), join(scratch, "split-00001-of-00002.gguf"));
    await assert.rejects(
      openCheckpointAt(join(scratch, "split-00001-of-00002.gguf")),
      (error) => error instanceof ModelError && /split-00002/.test(error.where!),
    );
  });
});

describe("a tokenizer in GGUF metadata", () => {
  const { model, added_tokens: added } = readGzippedJson("tokenizer/deepseek-v4-tokenizer.json.gz") as {
    model: { vocab: Record<string, number>; merges: string[] };
    added_tokens: { id: number; content: string; special: boolean }[];
  };
  const tokens: string[] = [];
  const types: number[] = [];
  for (const [content, id] of Object.entries(model.vocab)) [tokens[id], types[id]] = [content, 1];
  for (const { id, content, special } of added) [tokens[id], types[id]] = [content, special ? 3 : 4];
  const lists = {
    "tokenizer.ggml.tokens": { type: "ARRAY:STRING", value: tokens },
    "tokenizer.ggml.token_type": { type: "ARRAY:INT32", value: types },
    "tokenizer.ggml.merges": { type: "ARRAY:STRING", value: model.merges },
  };
  const text = (value: string) => ({ type: "STRING", value });
  const inFile = async (changes: Readonly<Record<string, Omit<GgufEntryToWrite, "key">>> = {}) => {
    const kind = { "tokenizer.ggml.model": text("gpt2"), "tokenizer.ggml.pre": text("deepseek-v3") };
    const entries = Object.entries({ ...kind, ...lists, ...changes }).map(([key, entry]) => ({ key, ...entry }));
    const { metadata } = await openGguf(new MemorySource("x.gguf", ggufBytes(entries)));
    return tokenizerOfGguf({ metadata, name: "x.gguf" });
  };

  test("gives the ids of the tokenizer.json that it was made from", async () => {
    const tokenizer = (await inFile())!;
    const original = deepseekTokenizer("v4");
    for (const text of ["Hello world, 12345", "春天来了", "<｜User｜>x</think>", "\n\n  a\tb"]) {
      for (const special of [true, false])
        assert.deepEqual(tokenizer.encode(text, { special }), original.encode(text, { special }));
    }
  });

  for (const [what, changes] of Object.entries({
    "of another model": { "tokenizer.ggml.model": text("llama") },
    "of another way of splitting": { "tokenizer.ggml.pre": text("llama-bpe") },
    "whose tokens are no list": { "tokenizer.ggml.tokens": { type: "UINT32", value: 5 } },
    "whose lists do not fit": { "tokenizer.ggml.token_type": { type: "ARRAY:INT32", value: [1] } },
    "with a million tokens and more": {
      "tokenizer.ggml.tokens": { type: "ARRAY:STRING", value: Array(2 ** 20 + 1).fill("a") },
      "tokenizer.ggml.token_type": { type: "ARRAY:INT32", value: Array(2 ** 20 + 1).fill(1) },
    },
    "whose merges are numbers": { "tokenizer.ggml.merges": { type: "ARRAY:INT32", value: [1, 2] } },
    "whose merges are lists": { "tokenizer.ggml.merges": { type: "ARRAY:ARRAY:STRING", value: [["a", "b"]] } },
  })) {
    test(`${what} is refused by name`, async () => {
      await assert.rejects(inFile(changes), (error: Error) => {
        assert.ok(error instanceof ModelError || error instanceof FormatError, `${error}`);
        return error.code === "tokenizer";
      });
    });
  }

  test("that is not there is none", async () => {
    assert.equal(await tokenizerOfGguf({ metadata: new Map(), name: "x.gguf" }), undefined);
  });
});
