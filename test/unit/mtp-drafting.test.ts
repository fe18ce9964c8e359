/** Drafting with an MTP module that is right: how many drafts are right shows whether its caches are what they should be. */
import assert from "node:assert/strict";
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, describe, test } from "node:test";
import { BatchEngine } from "../../src/engine/batching/batch-engine.ts";
import type { EngineRequest, EngineUsage } from "../../src/engine/batching/engine-port.ts";
import { MemoryCache } from "../../src/engine/batching/memory-cache.ts";
import type { SequenceCachePort } from "../../src/engine/batching/sequence-cache-port.ts";
import { PrefixCache } from "../../src/engine/cache/prefix-cache.ts";
import { sequenceBytes } from "../../src/engine/cache/sequence-bytes.ts";
import { MtpDrafter } from "../../src/engine/drafting/mtp-drafter.ts";
import type { SamplingOptions } from "../../src/engine/sampling/sampling-options.ts";
import { decodeTokens, draftingOf } from "../decode-tokens.ts";
import { echoConfig, echoModel } from "../echo-model.ts";
import { ForkCache } from "./fork-cache.ts";

const model = await echoModel();
const plain = await echoModel("off");
const scratch = mkdtempSync(join(tmpdir(), "freehold-mtp-"));
after(() => {
  model[Symbol.dispose]();
  plain[Symbol.dispose]();
  rmSync(scratch, { recursive: true });
});

const promptOf = (length: number, seed = 0) =>
  Array.from({ length }, (_, i) => (i * 17 + seed * 29 + ((i * i) % 7)) % echoConfig.vocabSize);

/** Drafts at every step, so that a wrong one is seen at once. */
const always = draftingOf(new MtpDrafter(model.runner));

const samplings: SamplingOptions[] = [
  { temperature: 0, seed: 1 },
  { temperature: 1, seed: 2 },
  { temperature: 0.7, topP: 0.9, seed: 3 },
  { temperature: 1.2, topK: 20, repetitionPenalty: 1.1, presencePenalty: 0.4, seed: 4 },
];

function alone(prompt: readonly number[], sampling: SamplingOptions, maxTokens: number) {
  return decodeTokens(plain.runner, prompt, { ...sampling, maxTokens }).then(({ tokenIds }) => tokenIds);
}

function requestOf(id: string, tokenIds: readonly number[], rest: Partial<EngineRequest> = {}): EngineRequest {
  const sampling = { temperature: 0, seed: 1 };
  const common = { generated: [], stopTokenIds: [], key: "k", priority: 1, namespace: "n" };
  return { id, tokenIds, sampling, maxTokens: 60, ...common, ...rest };
}

function ask(
  engine: BatchEngine,
  request: EngineRequest,
  onTokens = () => {},
): Promise<{ ids: number[]; usage: EngineUsage }> {
  const { promise, resolve, reject } = Promise.withResolvers<{ ids: number[]; usage: EngineUsage }>();
  const ids: number[] = [];
  engine.submit(request, (event) => {
    if (event.type === "tokens") {
      ids.push(...event.ids);
      onTokens();
    }
    if (event.type === "end") resolve({ ids, usage: event.usage });
    if (event.type === "error") reject(new Error(event.error.message));
  });
  return promise;
}

/** Nearly all: two rows of logits that are computed in different ways may differ in their last bits, and so in a near tie. */
function assertRight({ draftedTokens, acceptedTokens }: Pick<EngineUsage, "draftedTokens" | "acceptedTokens">): void {
  assert.ok(draftedTokens >= 40, `${draftedTokens} tokens drafted`);
  assert.ok(acceptedTokens >= 0.95 * draftedTokens, `${acceptedTokens} of ${draftedTokens} right`);
}

const engineOf = (cache: SequenceCachePort, scheduling = {}) =>
  new BatchEngine(model, cache, { drafting: always, scheduling });

describe("drafting with an MTP module", () => {
  for (const sampling of samplings) {
    test(`drafts that are right make answers of few steps, with the tokens of plain decoding: ${JSON.stringify(sampling)}`, async () => {
      const prompt = promptOf(70);
      const found = await decodeTokens(model.runner, prompt, { ...sampling, maxTokens: 80 }, always);
      assert.deepEqual(found.tokenIds, await alone(prompt, sampling, 80));
      assertRight({ draftedTokens: found.drafts.drafted, acceptedTokens: found.drafts.accepted });
      assert.ok(found.drafts.steps <= 22, `${found.drafts.steps} steps`);
    });
  }

  test("a model that is loaded with its module drafts by itself, and says so", async () => {
    const result = await model.complete(promptOf(60), { temperature: 0, maxTokens: 100, ignoreEos: true });
    assert.equal(result.drafts.drafter, "mtp");
    assert.ok(result.drafts.drafted > 0);
    assert.deepEqual(result.tokenIds, await alone(promptOf(60), { temperature: 0 }, 100));
  });

  test("a turn after an answer goes on from drafted tokens as from computed ones", async () => {
    using session = model.createSession();
    let prompt = promptOf(50);
    for (let turn = 0; turn < 4; turn++) {
      const { tokenIds, cachedTokens } = await session.complete(prompt, {
        temperature: 0,
        maxTokens: 23,
        ignoreEos: true,
      });
      assert.deepEqual(tokenIds, await alone(prompt, { temperature: 0 }, 23));
      assert.equal(session.tokenIds.length, prompt.length + 22);
      if (turn > 0) assert.equal(cachedTokens, prompt.length - 4);
      prompt = [...prompt, ...tokenIds, 5, 6, 7];
    }
  });

  test("answers that share steps draft as well as they do alone", async () => {
    const engine = engineOf(new MemoryCache(model.runner));
    const requests = Array.from({ length: 6 }, (_, i) =>
      requestOf(`r${i}`, promptOf(40 + 31 * i, i), { sampling: { ...samplings[i % 4]!, seed: i } }),
    );
    const outcomes = await Promise.all(requests.map((request) => ask(engine, request)));
    for (const [i, { tokenIds, sampling, maxTokens }] of requests.entries()) {
      assert.deepEqual(outcomes[i]!.ids, await alone(tokenIds, sampling, maxTokens));
      assertRight(outcomes[i]!.usage);
    }
    const { drafts, draftedTokens } = engine.status.counters;
    assert.ok(drafts > 6 && drafts < draftedTokens);
    assert.ok(engine.status.steps < 60, `${engine.status.steps} steps`);
    await engine.close();
  });

  test("preempted answers draft on where they were", async () => {
    const { bytesPerSequence, bytesPerToken } = sequenceBytes(model.runner.cache);
    const cacheBytes = 3.2 * (bytesPerSequence + bytesPerToken);
    const engine = engineOf(new ForkCache(model.runner), { cacheBytes, reservedShare: 0, fairnessPatienceMs: 0 });
    const requests = Array.from({ length: 6 }, (_, i) =>
      requestOf(`r${i}`, promptOf(60 + i, i), { key: `k${i % 2}`, priority: i < 4 ? 2 : 0, maxTokens: 80 }),
    );
    const isUnderWay = Promise.withResolvers<void>();
    const first = requests.slice(0, 4).map((request) => ask(engine, request, isUnderWay.resolve));
    await isUnderWay.promise; // better ones come
    const rest = requests.slice(4).map((request) => ask(engine, request));
    const outcomes = await Promise.all([...first, ...rest]);
    for (const [i, { tokenIds, sampling, maxTokens }] of requests.entries()) {
      assert.deepEqual(outcomes[i]!.ids, await alone(tokenIds, sampling, maxTokens));
      assertRight(outcomes[i]!.usage);
    }
    assert.ok(engine.status.counters.preemptions > 0, "nobody was preempted");
    await engine.close();
  });

  test("what the prefix cache gives back, from memory or from disk, is drafted from as what was computed", async () => {
    const directory = join(scratch, "kv");
    const open = () =>
      PrefixCache.open({
        runner: model.runner,
        modelDigest: "echo",
        memoryBudgetBytes: 1 << 26,
        store: { directory, budgetBytes: 1 << 26 },
      });
    const shared = promptOf(300);
    for (const [round, from] of ["nothing", "memory", "disk"].entries()) {
      const engine = engineOf(await open());
      if (from === "memory") await ask(engine, requestOf("first", [...shared, 1]));
      const tokenIds = [...shared, 7 + round, 8];
      const { ids, usage } = await ask(engine, requestOf("x", tokenIds));
      assert.deepEqual(ids, await alone(tokenIds, { temperature: 0 }, 60), from);
      if (from !== "nothing") assert.ok(usage.cachedTokens >= 256, `${usage.cachedTokens} tokens from ${from}`);
      assertRight(usage);
      await engine.close();
    }
  });

  test("a module that fails switches drafting off, and answers go on", async () => {
    const module = new MtpDrafter(model.runner);
    module.draft = async () => {
      throw new Error("broken");
    };
    const drafting = draftingOf(module);
    const warned = new Promise<Error>((resolve) => process.once("warning", resolve));
    const engine = new BatchEngine(model, new MemoryCache(model.runner), { drafting });
    const { ids, usage } = await ask(engine, requestOf("x", promptOf(40)));
    assert.deepEqual(ids, await alone(promptOf(40), { temperature: 0 }, 60));
    assert.equal(usage.draftedTokens, 0);
    assert.match((await warned).message, /Drafting is switched off: broken/);
    await engine.close();
  });
});
