/** What is held in memory beside the weights. */
import assert from "node:assert/strict";
import { test } from "node:test";
import { loadModel } from "../../src/engine/load-model.ts";

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
