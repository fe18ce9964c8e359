import assert from "node:assert/strict";
import { mkdirSync, mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { dirname, join } from "node:path";
import { after, describe, test } from "node:test";
import { openCheckpointAt } from "../../src/engine/checkpoint-folder.ts";
import { loadModel } from "../../src/engine/load-model.ts";
import { engramNeed } from "../../src/engine/memory-need.ts";
import { presetConfig, synthesizeModel, synthesizeTypes } from "../../src/engine/synthesize-model.ts";
import { ModelError } from "../../src/errors.ts";
import { ggufBlocks, ggufName, officialNameOfGguf } from "../../src/model/gguf-names.ts";
import { drafterParameters, modelParameters } from "../../src/model/parameters.ts";

const mtpConfig = { ...presetConfig("tiny"), numMtpModules: 1 };
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

  test("with a module for multi-token prediction: it stands behind the layers, and drafts", async () => {
    const path = join(scratch, "mtp.gguf");
    const { parameters } = await synthesizeModel(path, { preset: "tiny", type: "q8_0", mtp: true });
    const without = await synthesizeModel(join(scratch, "no-mtp.gguf"), { preset: "tiny", type: "q8_0" });
    assert.ok(parameters > 1.1 * without.parameters);
    const options = { temperature: 0, maxTokens: 30, ignoreEos: true };
    const answers = [];
    for (const drafting of ["off", "mtp", "auto"] as const) {
      using model = await loadModel(path, { drafting, threads: 1 });
      assert.deepEqual([model.config.numLayers, model.config.numMtpModules], [6, 1]);
      answers.push(await model.complete([5, 6, 7, 8], options));
    }
    assert.deepEqual(
      answers.map(({ drafts }) => drafts.drafter),
      ["off", "mtp", "mtp"],
    );
    assert.ok(answers[1]!.drafts.drafted > 0);
    for (const { tokenIds } of answers) assert.deepEqual(tokenIds, answers[0]!.tokenIds);
    const asked = loadModel(path, { drafting: "dspark" });
    await assert.rejects(asked, { code: "no-drafter", message: "The model has another drafter: mtp" });
  });

  test("modules count as blocks or do not: names and layers are the same", () => {
    const tensors = ["blk.0.attn_q_a.weight", "blk.6.attn_q_a.weight", "blk.6.nextn.e_proj.weight", "output.weight"];
    for (const count of [6, 7]) {
      assert.deepEqual(ggufBlocks(tensors, count), { numLayers: 6, numModules: 1 });
      assert.equal(officialNameOfGguf("blk.6.nextn.e_proj.weight", 6), "mtp.0.e_proj.weight");
    }
    assert.deepEqual(ggufBlocks(["blk.0.attn_q_a.weight"], 6), { numLayers: 6, numModules: 0 });
    assert.equal(officialNameOfGguf("blk.5.nextn.e_proj.weight", 6), undefined);
    const names = [...modelParameters(mtpConfig), ...drafterParameters(mtpConfig)].map(({ name }) => name);
    for (const name of names) assert.equal(officialNameOfGguf(ggufName(name, 6), 6), name);
  });

  test("the same seed writes the same file, another seed another", async () => {
    const write = async (name: string, seed: number) => {
      await synthesizeModel(join(scratch, name), { preset: "tiny", type: "q4_0", seed });
      return readFileSync(join(scratch, name));
    };
    const [first, again, other] = [await write("a", 1), await write("b", 1), await write("c", 2)];
    assert.ok(first.equals(again));
    assert.ok(!first.equals(other));
  });

  for (const type of ["mxfp4", "f32"] as const) {
    test(`of V4.1, ${type}: the folder loads as the config it was made from, and answers the same with any budget`, async () => {
      const folder = join(scratch, `v4.1-${type}`);
      const options = { preset: "v4.1-tiny", type, engramBytes: 1 << 20 };
      await synthesizeModel(folder, options);
      const checkpoint = await openCheckpointAt(folder);
      assert.deepEqual(checkpoint.config, presetConfig("v4.1-tiny", 1 << 20));
      const need = engramNeed(checkpoint, 1000)!;
      assert.deepEqual([need.tables, need.memory_bytes], [1, 1000]);
      // Primes of so small a table lie a little above what was asked for.
      const asked = options.engramBytes * (type === "f32" ? 1024 / 264 : 1);
      assert.ok(need.bytes > asked && need.bytes < 1.6 * asked, `${need.bytes}`);
      await checkpoint.close();
      const logits = [];
      for (const engramCacheBytes of [0, 1 << 26]) {
        using model = await loadModel(folder, { engramCacheBytes });
        logits.push(await model.logits(Array.from({ length: 40 }, (_, i) => (i * 7) % 1024)));
        assert.equal(model.dialect, "v4.1");
      }
      assert.ok(logits[0]!.flatMap((row) => [...row]).every((x) => Number.isFinite(x)));
      assert.deepEqual(logits[0], logits[1]);
    });
  }

  test("of V4.1 Flash, half a terabyte, opens from its headers", async () => {
    const folder = join(scratch, "flash");
    const engramBytes = 384_006_168 * 264;
    await synthesizeModel(folder, { preset: "v4.1-flash:40", type: "mxfp4", engramBytes, sparse: true });
    const checkpoint = await openCheckpointAt(folder);
    const bytes = checkpoint.tensors.reduce((sum, { begin, end }) => sum + end - begin, 0);
    assert.ok(bytes > 490e9, `${bytes}`);
    assert.ok(engramNeed(checkpoint, 0)!.bytes > 200e9);
    await checkpoint.close();
  });

  test("the presets have the shapes that their names say", () => {
    assert.equal(presetConfig("v4-flash:43").numExperts, 256);
    assert.deepEqual(presetConfig("v4-flash:2").compressRatios, [4, 128]);
    assert.deepEqual(presetConfig("v4-flash:6").compressRatios, [0, 0, 4, 128, 4, 128]);
    const flash = presetConfig("v4.1-flash:21");
    assert.ok(flash.architecture === "deepseek-v4.1");
    assert.deepEqual(flash.entrySourceLayers, [2, 8, 14, 20]);
    assert.deepEqual(flash.engram?.layers, [1, 14]);
    for (let layers = 1; layers <= 40; layers++) assert.equal(presetConfig(`v4.1-flash:${layers}`).numLayers, layers);
    assert.throws(() => presetConfig("v4-flash:44"), /no preset/);
    assert.throws(() => presetConfig("v4.1-flash:41"), /no preset/);
  });
});

describe("a model that cannot be written", () => {
  for (const preset of ["tiny", "v4.1-tiny"]) {
    const options = { preset, type: "q4_0", engramBytes: 1 << 20 } as const;
    const placeOf = (name: string) => join(mkdtempSync(join(scratch, "unwritable-")), name);

    test(`${preset}: an aborted writing leaves nothing, and what was there as it was`, async () => {
      const path = placeOf("model");
      const abort = new AbortController();
      const aborted = { ...options, signal: abort.signal, onProgress: () => abort.abort() };
      await assert.rejects(synthesizeModel(path, aborted), { name: "AbortError" });
      assert.deepEqual(readdirSync(dirname(path)), []);
    });

    test(`${preset}: below a file, or where something else is, is refused with the path`, async () => {
      const file = placeOf("file");
      writeFileSync(file, "x");
      const other = placeOf("other");
      if (preset === "tiny") mkdirSync(other);
      else writeFileSync(other, "x");
      for (const path of [join(file, "model"), other]) {
        await assert.rejects(
          synthesizeModel(path, options),
          (error) => error instanceof ModelError && error.where === path && error.hint !== undefined,
        );
      }
      assert.equal(readFileSync(file, "utf8"), "x");
    });
  }

  test("in a folder that does not exist is refused with what to do", async () => {
    const path = join(scratch, "no", "such", "folder.gguf");
    await assert.rejects(
      synthesizeModel(path, { preset: "tiny", type: "q4_0" }),
      (error) => error instanceof ModelError && /Make the folder/.test(error.hint!),
    );
  });

  test("a file that is there is replaced only when the new one is whole", async () => {
    const path = join(scratch, "kept.gguf");
    writeFileSync(path, "before");
    const abort = new AbortController();
    const aborted = { signal: abort.signal, onProgress: () => abort.abort() };
    await assert.rejects(synthesizeModel(path, { preset: "tiny", type: "q4_0", ...aborted }));
    assert.equal(readFileSync(path, "utf8"), "before");
    await synthesizeModel(path, { preset: "tiny", type: "q4_0" });
    assert.equal(readFileSync(path, "latin1").slice(0, 4), "GGUF");
  });
});
