/**
 * The batch engine with a V4.1 model: selections and n-gram rows belong to their sequence alone, whatever shares the step, is
 * preempted, wound back or taken over by another engine.
 */
import assert from "node:assert/strict";
import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, describe, test } from "node:test";
import { BatchEngine, type BatchEngineOptions } from "../../src/engine/batching/batch-engine.ts";
import type { EngineEvent, EngineRequest, EngineUsage } from "../../src/engine/batching/engine-port.ts";
import { MemoryCache } from "../../src/engine/batching/memory-cache.ts";
import type { SequenceCachePort } from "../../src/engine/batching/sequence-cache-port.ts";
import { PrefixCache } from "../../src/engine/cache/prefix-cache.ts";
import { sequenceBytes } from "../../src/engine/cache/sequence-bytes.ts";
import { Drafting } from "../../src/engine/drafting/drafting.ts";
import { loadModel } from "../../src/engine/load-model.ts";
import { digestOfModel } from "../../src/engine/model-digest.ts";
import type { SamplingOptions } from "../../src/engine/sampling/sampling-options.ts";
import { v41Folder } from "../v41-folder.ts";

const folder = await v41Folder();
// Tables of 2 MiB, memory for a part of them: most rows are read while steps compute.
const model = await loadModel(folder.path, { device: "cpu", contextLength: 2048, engramCacheBytes: 200_000 });
after(async () => {
  model[Symbol.dispose]();
  await folder[Symbol.asyncDispose]();
});
const { runner } = model;

const engineOf = (options: BatchEngineOptions = {}, cache: SequenceCachePort = new MemoryCache(runner)) =>
  new BatchEngine(model, cache, options);
const usedPages = () => runner.cache.layouts.reduce((sum, { pool }) => sum + pool.used, 0);
const promptOf = (length: number, seed = 0) => Array.from({ length }, (_, i) => 20 + ((i * 37 + seed * 101) % 900));

const samplings: (SamplingOptions & { seed: number })[] = [
  { temperature: 0, seed: 1 },
  { temperature: 1, seed: 2 },
  { temperature: 0.8, topP: 0.9, seed: 3 },
];

function requestOf(i: number, promptTokens: number, maxTokens: number, first = 0): EngineRequest {
  const sampling = samplings[i % samplings.length]!;
  const tokenIds = [...promptOf(first, 99), ...promptOf(promptTokens, i)];
  const rest = { generated: [], stopTokenIds: [], key: `k${i % 3}`, priority: 1, namespace: "n" };
  return { id: `r${i}`, tokenIds, sampling, maxTokens, ...rest };
}

function ask(engine: BatchEngine, request: EngineRequest): Promise<{ ids: readonly number[]; usage: EngineUsage }> {
  const { promise, resolve, reject } = Promise.withResolvers<{ ids: readonly number[]; usage: EngineUsage }>();
  const ids: number[] = [];
  engine.submit(request, (event: EngineEvent) => {
    if (event.type === "tokens") ids.push(...event.ids);
    if (event.type === "end") resolve({ ids, usage: event.usage });
    if (event.type === "error") reject(new Error(event.error.message));
  });
  return promise;
}

/** The same request by the code that answers single prompts. */
async function alone({ tokenIds, sampling, maxTokens }: EngineRequest): Promise<readonly number[]> {
  return (await model.complete(tokenIds, { ...sampling, maxTokens, ignoreEos: true })).tokenIds;
}

describe("the batch engine with a V4.1 model", () => {
  for (const drafting of ["off", "ngram"] as const)
    test(`requests of all kinds together get the tokens that each gets alone (drafting ${drafting})`, async () => {
      const lengths = [1, 5, 60, 127, 128, 129, 300, 700];
      const requests = lengths.map((length, i) => requestOf(i, length, 4 + ((i * 5) % 20)));
      const engine = engineOf({ drafting: new Drafting(drafting) });
      const answers = await Promise.all(requests.map((request) => ask(engine, request)));
      for (const [i, request] of requests.entries())
        assert.deepEqual(answers[i]!.ids, await alone(request), request.id);
      const { lookups, hits, rowsRead, batches, readBytes, memoryBytes } = engine.status.counters.engram!;
      assert.ok(rowsRead > 0 && hits > 0 && hits < lookups && batches < rowsRead, JSON.stringify({ lookups, hits }));
      assert.ok(readBytes > rowsRead && memoryBytes > 0);
      await engine.close();
      assert.equal(usedPages(), 0);
    });

  test("preempted requests go on where they were, from memory and from disk", async () => {
    const directory = await mkdtemp(join(tmpdir(), "freehold-v41-engine-"));
    const modelDigest = await digestOfModel(folder.path);
    const { bytesPerSequence, bytesPerToken } = sequenceBytes(runner.cache);
    const requests = Array.from({ length: 6 }, (_, i) => requestOf(i, 150 + 10 * i, 70));
    const scheduling = { cacheBytes: 4 * bytesPerSequence + 800 * bytesPerToken, reservedShare: 0 };
    for (const memoryBudgetBytes of [1 << 28, 0]) {
      const store = { directory, budgetBytes: 1 << 30, reserveBytes: 0 };
      const cache = await PrefixCache.open({ runner, modelDigest, memoryBudgetBytes, store });
      const engine = engineOf({ scheduling }, cache);
      const answers = await Promise.all(requests.map((request) => ask(engine, request)));
      for (const [i, request] of requests.entries())
        assert.deepEqual(answers[i]!.ids, await alone(request), request.id);
      assert.ok(engine.status.counters.preemptions > 0, "nobody was preempted");
      await engine.close();
      assert.equal(usedPages(), 0);
    }
    await rm(directory, { recursive: true });
  });

  test("a shared beginning is computed once, and each goes its own way from it", async () => {
    const cache = await PrefixCache.open({ runner, modelDigest: "m", memoryBudgetBytes: 1 << 28, store: "off" });
    const engine = engineOf({}, cache);
    const requests = Array.from({ length: 4 }, (_, i) => requestOf(i, 60, 16, 600));
    const answers = await Promise.all(requests.map((request) => ask(engine, request)));
    for (const [i, request] of requests.entries()) assert.deepEqual(answers[i]!.ids, await alone(request));
    assert.deepEqual(
      answers.map(({ usage }) => usage.cachedTokens > 0),
      [false, true, true, true],
    );
    await engine.close();
    assert.equal(usedPages(), 0);
  });

  test("an answer that another engine began goes on with the same tokens", async () => {
    const engine = engineOf();
    for (const [i] of samplings.entries()) {
      const request = requestOf(i, 140, 24);
      const whole = await ask(engine, request);
      for (const given of [1, 10, 23]) {
        const rest = await ask(engine, { ...request, id: "rest", generated: whole.ids.slice(0, given) });
        assert.deepEqual(rest.ids, whole.ids.slice(given));
      }
    }
    await engine.close();
  });

  test("a session that is forked and wound back answers as a new one does", async () => {
    using session = model.createSession();
    const prompt = promptOf(333, 4);
    const first = await session.complete(prompt, { temperature: 0, maxTokens: 20, ignoreEos: true });
    using fork = session.fork();
    const other = [...prompt.slice(0, 300), ...promptOf(40, 8)];
    const options = { temperature: 0, maxTokens: 12, ignoreEos: true };
    const branched = await fork.complete(other, options);
    session.rewind(7);
    const again = await session.complete(prompt, { temperature: 0, maxTokens: 20, ignoreEos: true });
    assert.deepEqual(again.tokenIds, first.tokenIds);
    assert.deepEqual(branched.tokenIds, (await model.complete(other, options)).tokenIds);
  });
});
