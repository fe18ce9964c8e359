/**
 * Weights that are no numbers: whichever tensor of a model holds them, in whichever format, the answer is the error "logits" and never
 * a token that somebody takes for an answer.
 */
import assert from "node:assert/strict";
import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, describe, test } from "node:test";
import { FileSource } from "../../src/engine/file-source.ts";
import { loadModel } from "../../src/engine/load-model.ts";
import { RequestError } from "../../src/errors.ts";
import { type GgufTensor, openGguf } from "../../src/format/gguf.ts";
import { kernelBodiesHere } from "../kernel-devices.ts";

const scratch = mkdtempSync(join(tmpdir(), "freehold-damaged-weights-"));
after(() => rmSync(scratch, { recursive: true }));

/** Long enough for an entry of 128 tokens. */
const prompt = Array.from({ length: 140 }, (_, i) => (i * 7) % 256);

/** Bytes of a block, and where and how NaN and Infinity are written into it. What is not here has no such values (MXFP4). */
const places: Readonly<Record<string, { bytes: number; NaN: readonly number[]; Infinity: readonly number[] }>> = {
  F32: { bytes: 4, NaN: [0, 0, 0xc0, 0x7f], Infinity: [0, 0, 0x80, 0x7f] },
  BF16: { bytes: 2, NaN: [0xc0, 0x7f], Infinity: [0x80, 0x7f] },
  Q8_0: { bytes: 34, NaN: [0, 0x7e], Infinity: [0, 0x7c] },
};

/** What only chooses, among experts or entries: nothing that is no number is ever chosen, and the rest of the model answers. */
const chooses = /\.indexer|exp_probs_b/;
/** A gate that an infinite number shuts or opens is a gate all the same, and the inputs of SwiGLU are bounded. */
const bounds = /\.(hc_|attn_compressor_(gate|ape)|attn_sinks|ffn_up)|output_hc_/;

for (const file of ["deepseek4-tiny-f32.gguf", "deepseek4-tiny-mixed.gguf"]) {
  const source = await FileSource.open(join(import.meta.dirname, "../data/gguf", file));
  const { tensors } = await openGguf(source);
  const whole = await source.read(0, source.size);
  await source.close();
  const roles = Map.groupBy(
    tensors.values(),
    ({ name, type }) => `${name.replace(/^blk\.\d+/, "blk.*")}, ${type.name}`,
  );

  /** The file with the first block of each row of some tensors damaged. */
  const damaged = (some: readonly GgufTensor[], what: "NaN" | "Infinity") => {
    const bytes = whole.slice();
    for (const { type, begin, end, shape } of some) {
      const place = places[type.name]!;
      const rowBytes = (shape.at(-1)! / type.blockElements) * type.blockBytes;
      for (let at = begin; at < end; at += rowBytes) bytes.set(place[what], at);
    }
    const path = join(scratch, "damaged.gguf");
    writeFileSync(path, bytes);
    return path;
  };

  describe(`${file} with weights that are no numbers`, () => {
    for (const [role, some] of roles) {
      const { type } = some[0]!;
      if (places[type.name] === undefined || chooses.test(role)) continue;
      for (const what of bounds.test(role) ? (["NaN"] as const) : (["NaN", "Infinity"] as const)) {
        test(`${what} in ${role}: the error is of the logits`, async () => {
          const path = damaged(some, what);
          for (const activations of ["int8", "float32"] as const) {
            using model = await loadModel(path, { activations, threads: 1, contextLength: 256 });
            const isOurs = (error: unknown) => error instanceof RequestError && error.code === "logits";
            await assert.rejects(model.complete(prompt, { maxTokens: 1, temperature: 0 }), isOurs, activations);
          }
        });
      }
    }

    test("a NaN in an expert is found by every body", async () => {
      const experts = [...tensors.values()].filter(({ name, type }) => /shexp/.test(name) && places[type.name]);
      const path = damaged(experts.slice(-1), "NaN");
      for (const { device, instructions } of kernelBodiesHere) {
        for (const activations of ["int8", "float32"] as const) {
          using model = await loadModel(path, { device, instructions, activations, threads: 1, contextLength: 256 });
          for (const length of [1, 7, 20])
            await assert.rejects(model.complete(prompt.slice(0, length), { maxTokens: 1 }), { code: "logits" });
        }
      }
    });
  });
}
