/** --cache-memory: what running requests and remembered prompts may take together. */
import assert from "node:assert/strict";
import { totalmem } from "node:os";
import { describe, test } from "node:test";
import { cacheMemory } from "../../src/server/processes/cache-memory.ts";
import { startEngine } from "../../src/server/processes/model-engine.ts";

const gigabyte = 1e9;

describe("memory of caches", () => {
  const cases = [
    { asked: undefined, machine: 16 * gigabyte, running: 2 * gigabyte, remembered: 2 * gigabyte },
    { asked: undefined, machine: 1024 * gigabyte, running: 128 * gigabyte, remembered: 128 * gigabyte },
    { asked: 5 * gigabyte, machine: 16 * gigabyte, running: 5 * gigabyte, remembered: 5 * gigabyte },
    { asked: 0, machine: 16 * gigabyte, running: 2 * gigabyte, remembered: 0 },
  ];
  for (const { asked, machine, running, remembered } of cases) {
    test(`${asked ?? "nothing"} asked for, on ${machine / gigabyte} GB`, () =>
      assert.deepEqual(cacheMemory(asked, machine), { runningBytes: running, rememberedBytes: remembered }));
  }

  test("is an eighth of this machine's at most where nothing is asked", () => {
    const { runningBytes } = cacheMemory(undefined);
    assert.ok(runningBytes > 0 && runningBytes <= totalmem() / 8);
  });

  // A sequence of the embedded model takes some 300 KB, and 200 bytes a token.
  for (const { bytes, most } of [
    { bytes: 400_000, most: 1 },
    { bytes: 50_000_000, most: 4 },
  ]) {
    test(`of ${bytes} bytes lets ${most} of four requests run at a time, and all end`, async () => {
      const engine = await startEngine({ cacheDiskBytes: 0, cacheMemoryBytes: bytes, threads: 1 }, () => undefined);
      let running = 0;
      const ends = [0, 1, 2, 3].map(
        (seed) =>
          new Promise<string>((resolve) => {
            const tokenIds = Array.from({ length: 200 }, (_, i) => 100 + ((seed * 997 + i * 31) % 300));
            const request = { id: `${seed}`, tokenIds, generated: [], sampling: { seed }, maxTokens: 40 };
            const owner = { stopTokenIds: [], key: "k", priority: 1, namespace: "n" };
            engine.submit({ ...request, ...owner }, (event) => {
              running = Math.max(running, engine.status.running);
              if (event.type === "end") resolve(event.finish);
              if (event.type === "error") resolve(event.error.message);
            });
          }),
      );
      assert.deepEqual(await Promise.all(ends), Array(4).fill("length"));
      assert.equal(running, most);
      assert.equal(engine.status.counters.cache.memoryBudgetBytes, bytes);
      await engine.close();
    });
  }
});
