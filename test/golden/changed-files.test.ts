/**
 * Files of weights that change while a model uses them: one that is replaced or deleted stays what it was, one that is cut off ends
 * the answer with an error. Reading what was cut off would end the process.
 */
import assert from "node:assert/strict";
import { copyFileSync, mkdtempSync, renameSync, rmSync, truncateSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, describe, test } from "node:test";
import { BatchEngine } from "../../src/engine/batching/batch-engine.ts";
import { loadModel } from "../../src/engine/load-model.ts";
import { DeviceError } from "../../src/errors.ts";
import { ForkCache } from "../unit/fork-cache.ts";

const scratch = mkdtempSync(join(tmpdir(), "freehold-changed-files-"));
after(() => rmSync(scratch, { recursive: true }));
const data = join(import.meta.dirname, "../data/gguf");
const skip = process.platform === "win32" && "Windows lets nobody replace or cut off a file that is mapped";
const options = { maxTokens: 8, temperature: 0, ignoreEos: true };
const isCutOff = (error: unknown) =>
  error instanceof DeviceError && error.code === "file-changed" && error.where === "model.gguf";

describe("a file of weights that is in use", { skip }, () => {
  for (const isolation of ["threads", "process"] as const) {
    const load = () => {
      const path = join(scratch, "model.gguf");
      copyFileSync(join(data, "deepseek4-tiny-f32.gguf"), path);
      return { path, model: loadModel(path, { isolation, threads: 1, contextLength: 128 }) };
    };

    test(`may be replaced and deleted (${isolation})`, async () => {
      const { path, model: loading } = load();
      using model = await loading;
      const { tokenIds } = await model.complete([1, 2, 3], options);
      copyFileSync(join(data, "deepseek4-tiny-mixed.gguf"), `${path}.new`);
      renameSync(`${path}.new`, path);
      assert.deepEqual((await model.complete([1, 2, 3], options)).tokenIds, tokenIds);
      rmSync(path);
      assert.deepEqual((await model.complete([1, 2, 3], options)).tokenIds, tokenIds);
    });

    test(`and is cut off ends every answer with an error, also when it grows again (${isolation})`, async () => {
      const { path, model: loading } = load();
      using model = await loading;
      await model.complete([1, 2, 3], options);
      truncateSync(path, 4096);
      await assert.rejects(model.complete([1, 2, 3], options), isCutOff);
      writeFileSync(path, new Uint8Array(8 << 20));
      await assert.rejects(model.complete([1, 2, 3], options), isCutOff);
    });
  }

  test("and is cut off ends the engine of a server, which is then started anew", async () => {
    const path = join(scratch, "model.gguf");
    copyFileSync(join(data, "deepseek4-tiny-f32.gguf"), path);
    using model = await loadModel(path, { threads: 1, contextLength: 128 });
    const engine = new BatchEngine(model, new ForkCache(model.runner));
    truncateSync(path, 4096);
    const { promise, resolve } = Promise.withResolvers<unknown>();
    const request = {
      id: "a",
      tokenIds: [1, 2],
      generated: [],
      stopTokenIds: [],
      key: "k",
      namespace: "n",
      priority: 1,
    };
    engine.submit({ ...request, sampling: { temperature: 0, seed: 1 }, maxTokens: 4 }, (event) => {
      if (event.type === "error") resolve(event.error.code);
      if (event.type === "end") resolve(event.finish);
    });
    assert.equal(await promise, "engine_died");
    await engine.close();
  });
});
