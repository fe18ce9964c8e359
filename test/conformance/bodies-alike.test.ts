/**
 * What is promised between bodies of the kernels: those that only multiply integers otherwise (VNNI, AMX) give the same bits; others
 * the same numbers but for the rounding of float32.
 */
import assert from "node:assert/strict";
import { join } from "node:path";
import { describe, test } from "node:test";
import { loadModel } from "../../src/engine/load-model.ts";
import { kernelBodiesHere } from "../kernel-devices.ts";

/** Weights in many block formats. */
const model = join(import.meta.dirname, "../data/gguf/deepseek4-tiny-mixed.gguf");
const bodies = new Map(kernelBodiesHere.map((body) => [body.name, body]));

async function logitsOn(name: string, activations: "int8" | "float32"): Promise<Float32Array[]> {
  const { device, instructions } = bodies.get(name)!;
  using loaded = await loadModel(model, { device, instructions, activations, contextLength: 256 });
  const ids = Array.from({ length: 150 }, (_, i) => (7 + 31 * i) % loaded.config.vocabSize);
  return await loaded.logits(ids);
}

describe("the same bits come from", () => {
  for (const [one, other] of [
    ["native avx2", "native avxvnni"],
    ["native avx512", "native amx"],
  ] as const) {
    const isAbsent = !(bodies.has(one) && bodies.has(other)) && "this processor does not have both";
    for (const activations of ["int8", "float32"] as const) {
      test(`${one} and ${other}, ${activations} activations`, { skip: isAbsent }, async () => {
        assert.deepEqual(await logitsOn(one, activations), await logitsOn(other, activations));
      });
    }
  }
});

test("with float32 activations all bodies differ by rounding alone", async () => {
  const [first, ...others] = [...bodies.keys()];
  const expected = await logitsOn(first!, "float32");
  const size = Math.max(...expected.map((row) => Math.max(...row.map(Math.abs))));
  for (const name of others) {
    const found = await logitsOn(name, "float32");
    const worst = Math.max(
      ...found.map((row, p) => Math.max(...row.map((value, i) => Math.abs(value - expected[p]![i]!)))),
    );
    assert.ok(worst <= 1e-5 * size, `${name}: ${worst} of ${size}`);
  }
});
