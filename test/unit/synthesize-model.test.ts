import assert from "node:assert/strict";
import { mkdtempSync, readFileSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, describe, test } from "node:test";
import { openCheckpointAt } from "../../src/engine/checkpoint-folder.ts";
import { presetConfig, synthesizeModel, synthesizeTypes } from "../../src/engine/synthesize-model.ts";

const scratch = mkdtempSync(join(tmpdir(), "freehold-synthesize-"));
after(() => rmSync(scratch, { recursive: true }));

describe("synthesised models", () => {
  for (const type of synthesizeTypes) {
    test(`${type}: the file reads back as the config it was made from, with weights of the right spread`, async () => {
      const path = join(scratch, `${type}.gguf`);
      const { bytes } = await synthesizeModel(path, { preset: "tiny", type });
      assert.equal(readFileSync(path).length, bytes);
      const checkpoint = await openCheckpointAt(path);
      const expected = presetConfig("tiny");
      assert.deepEqual(checkpoint.config, { ...expected, hcEps: Math.fround(1e-6), rmsNormEps: Math.fround(1e-6) });
      for (const name of ["layers.2.ffn.experts.w1.weight", "layers.2.attn.wq_b.weight", "layers.2.attn.wo_a.weight"]) {
        const { data, shape } = await checkpoint.load(name);
        const variance = Array.from(data).reduce((sum, x) => sum + x * x, 0) / data.length;
        const spread = Math.sqrt(variance) * Math.sqrt(shape.at(-1)!);
        assert.ok(spread > 0.6 && spread < 1.5, `${name}: ${spread}`);
      }
      for (const { name } of checkpoint.parameters) {
        const { data } = await checkpoint.load(name);
        assert.ok(
          data.every((x) => Number.isFinite(x)),
          name,
        );
      }
      await checkpoint.close();
    });
  }

  test("the same seed writes the same file, another seed another", async () => {
    const write = async (name: string, seed: number) => {
      await synthesizeModel(join(scratch, name), { preset: "tiny", type: "q4_0", seed });
      return readFileSync(join(scratch, name));
    };
    const [first, again, other] = [await write("a", 1), await write("b", 1), await write("c", 2)];
    assert.ok(first.equals(again));
    assert.ok(!first.equals(other));
  });

  test("the presets have the shapes that their names say", () => {
    assert.equal(presetConfig("v4-flash:43").numExperts, 256);
    assert.deepEqual(presetConfig("v4-flash:2").compressRatios, [4, 128]);
    assert.deepEqual(presetConfig("v4-flash:6").compressRatios, [0, 0, 4, 128, 4, 128]);
    assert.throws(() => presetConfig("v4-flash:44"), /no preset/);
  });
});
