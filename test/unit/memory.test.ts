/** What is held in memory beside the weights. */
import assert from "node:assert/strict";
import { once } from "node:events";
import { describe, test } from "node:test";
import { Worker } from "node:worker_threads";
import { controlBytes } from "../../src/device/cpu/control-block.ts";
import { words } from "../../src/device/cpu/work-until-quit.js";
import { addonPath } from "../../src/engine/kernels/native-host.ts";
import { loadModel } from "../../src/engine/load-model.ts";

describe("a thread loads no compiler for TypeScript", () => {
  // Node refuses TypeScript under this option.
  const execArgv = ["--no-strip-types"];
  const file = (path: string) => new URL(`../../src/engine/${path}`, import.meta.url);

  test("to run kernels", async () => {
    const control = new Int32Array(new SharedArrayBuffer(controlBytes));
    control[words.quit] = 1;
    const workerData = { kind: "native", addon: addonPath(), control: new Uint8Array(control.buffer), address: 0 };
    const worker = new Worker(file("kernels/kernel-worker.js"), { execArgv, workerData: { ...workerData, index: 0 } });
    assert.deepEqual(await once(worker, "exit"), [0]);
  });

  test("to read rows of tables", async () => {
    const worker = new Worker(file("engram/row-reader-worker.js"), { execArgv });
    const job = { id: 7, rows: new Int32Array(0), stride: 4, stretches: [], memory: new SharedArrayBuffer(8) };
    worker.postMessage(job);
    assert.deepEqual(await once(worker, "message"), [{ id: 7 }]);
    await worker.terminate();
  });
});

test("a step of 512 tokens has room for what lives at a time, and caches for the pages it writes", async () => {
  using model = await loadModel(undefined, { device: "cpu", threads: 1 });
  const { runner } = model;
  const { hcMult, hiddenSize } = model.config;
  const streams = 4 * 512 * hcMult * hiddenSize;
  const scores = 4 * 512 * 1024; // of the indexer at a context of 4096
  // Twice the residual streams while they are normalised; as much again for all else, logits of one token among it.
  const room = runner.program.memoryBytes;
  assert.ok(room < 4 * streams + scores, `${room} bytes`);

  using sequence = runner.createSequence();
  await runner.append({ sequence, tokenIds: Array.from({ length: 512 }, (_, i) => i % 300), outputs: 1 });
  const pages = runner.cache.layouts.map(({ pageValues, pool }) => 4 * pageValues * pool.size);
  assert.equal(
    runner.program.memoryBytes - room,
    pages.reduce((sum, bytes) => sum + bytes),
  );
});
