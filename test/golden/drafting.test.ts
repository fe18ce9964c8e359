/**
 * Drafting on recorded models of both generations: an answer is the same with any draft, whatever runs beside it, and what drafts
 * remembers the same however its sequence came about.
 */
import assert from "node:assert/strict";
import { join } from "node:path";
import { after, describe, test } from "node:test";
import fc from "fast-check";
import { BatchEngine } from "../../src/engine/batching/batch-engine.ts";
import type { EngineRequest } from "../../src/engine/batching/engine-port.ts";
import { CacheRows } from "../../src/engine/cache/cache-rows.ts";
import { sequenceBytes } from "../../src/engine/cache/sequence-bytes.ts";
import { DsparkDrafter } from "../../src/engine/drafting/dspark-drafter.ts";
import { type ModelDrafter, mostProbable } from "../../src/engine/drafting/model-drafter.ts";
import { MtpDrafter } from "../../src/engine/drafting/mtp-drafter.ts";
import { loadModel } from "../../src/engine/load-model.ts";
import type { Model } from "../../src/engine/model.ts";
import type { Sequence } from "../../src/engine/model-runner.ts";
import { startEngine } from "../../src/server/processes/model-engine.ts";
import { decodeTokens, draftingOf } from "../decode-tokens.ts";
import { randomNumbers } from "../small-model.ts";
import { ForkCache } from "../unit/fork-cache.ts";
import { loadV41Case, v41Cases } from "./v4.1-case.ts";
import { loadCase } from "./v4-case.ts";

const folderOf = (name: string) => join(import.meta.dirname, "../data", name);

const models = [
  { name: "v4/mtp", drafter: "mtp" },
  { name: "v4/official", drafter: "mtp" },
  { name: "v4.1/dspark", drafter: "dspark" },
] as const;

function drafterOf(model: Model): ModelDrafter {
  const { runner, device } = model;
  return runner.config.architecture === "deepseek-v4" ? new MtpDrafter(runner) : new DsparkDrafter(runner, device);
}

for (const { name, drafter } of models) {
  describe(`drafting with ${drafter} on ${name}`, async () => {
    const folder = folderOf(name);
    const model = await loadModel(folder, { drafting: drafter, threads: 1 });
    const plain = await loadModel(folder, { threads: 1 });
    after(() => {
      model[Symbol.dispose]();
      plain[Symbol.dispose]();
    });
    const { vocabSize } = model.config;
    const random = randomNumbers(7);
    const text = Array.from({ length: 260 }, () => Math.floor(random() * vocabSize));

    test("it is the model's own, and nothing drafts unless asked", () => {
      assert.equal(model.drafting.kind, drafter);
      assert.equal(plain.drafting.kind, "off");
    });

    test("forked, wound back or restored, a sequence drafts bitwise as one that was computed in one go", async () => {
      await checkSequences(model, text);
    });

    test("answers are the same with any drafts, in any company", async () => {
      const alone = new Map<string, Promise<readonly number[]>>();
      const answerAlone = ({ tokenIds, sampling, maxTokens }: EngineRequest) => {
        const key = JSON.stringify([tokenIds, sampling, maxTokens]);
        const known = alone.get(key) ?? decodeTokens(plain.runner, tokenIds, { ...sampling, maxTokens });
        const answer = known.then((result) => ("tokenIds" in result ? result.tokenIds : result));
        alone.set(key, answer);
        return answer;
      };
      const request = fc.record({
        start: fc.nat(3),
        promptTokens: fc.integer({ min: 1, max: 200 }),
        maxTokens: fc.integer({ min: 1, max: 30 }),
        temperature: fc.constantFrom(0, 0, 0.7, 1),
        cancelAfter: fc.option(fc.nat(6), { freq: 6 }),
        priority: fc.nat(2),
      });
      const schedule = fc.record({
        requests: fc.array(request, { minLength: 1, maxLength: 7 }),
        seed: fc.nat(),
        roomForSequences: fc.integer({ min: 1, max: 8 }),
        maxStepTokens: fc.constantFrom(16, 130, 512),
      });
      let accepted = 0;
      const property = fc.asyncProperty(schedule, async ({ requests, seed, roomForSequences, maxStepTokens }) => {
        const asked = requests.map(
          ({ start, promptTokens, maxTokens, temperature, priority }, i): EngineRequest => ({
            ...{ id: `r${i}`, generated: [], stopTokenIds: [], key: `k${i % 2}`, namespace: "n", priority, maxTokens },
            tokenIds: text.slice(start, start + promptTokens),
            sampling: { temperature, seed: 5 },
          }),
        );
        const answers = await Promise.all(asked.map(answerAlone));
        const texts = asked.map(({ tokenIds }, i) => [...tokenIds, ...answers[i]!]);
        const drafting = draftingOf(half(drafterOf(model), texts, seed), lengths(seed));
        const { bytesPerSequence, bytesPerToken } = sequenceBytes(model.runner.cache);
        const cacheBytes = roomForSequences * (bytesPerSequence + 130 * bytesPerToken);
        const scheduling = { cacheBytes, reservedShare: 0, maxStepTokens, fairnessPatienceMs: 1 };
        const engine = new BatchEngine(model, new ForkCache(model.runner), { drafting, scheduling });
        const given = await Promise.all(asked.map((one, i) => ask(engine, one, requests[i]!.cancelAfter)));
        for (const [i, ids] of given.entries()) {
          const expected = requests[i]!.cancelAfter === null ? answers[i]! : answers[i]!.slice(0, ids.length);
          assert.deepEqual(ids, expected, `request ${i}`);
        }
        accepted += engine.status.counters.acceptedTokens;
        await engine.close();
        assert.equal(
          model.runner.cache.layouts.reduce((sum, { pool }) => sum + pool.used, 0),
          0,
        );
      });
      await fc.assert(property, { numRuns: 12 });
      assert.ok(accepted > 20, `${accepted} drafted tokens were right`);
    });

    test("drafts that are never right become rare", async () => {
      const { drafts, tokenIds } = await model.complete(text.slice(0, 30), {
        temperature: 1,
        seed: 3,
        maxTokens: 300,
        ignoreEos: true,
      });
      assert.equal(tokenIds.length, 300);
      assert.ok(drafts.drafted < 90, `${drafts.drafted} tokens drafted, ${drafts.accepted} right`);
    });
  });
}

describe("recorded prompts", () => {
  test("DSpark gives the greedy tokens of every recorded prompt of V4.1, alone and served", async () => {
    const folder = folderOf("v4.1/dspark");
    using model = await loadModel(folder, { drafting: "dspark", threads: 1 });
    using plain = await loadModel(folder, { threads: 1 });
    const engine = await startEngine({ model: folder, threads: 1, cacheDiskBytes: 0 }, () => {});
    assert.equal(engine.info?.drafter, "dspark");
    for (const recorded of v41Cases) {
      const golden = await loadV41Case(recorded);
      await golden.checkpoint.close();
      // Other models have larger vocabularies.
      const prompt = golden.prompt.map((id) => id % model.config.vocabSize);
      const sampling = { temperature: 0, seed: 1 };
      const options = { ...sampling, maxTokens: 24 };
      const { tokenIds } = await decodeTokens(plain.runner, prompt, options);
      const drafted = await decodeTokens(model.runner, prompt, options, draftingOf(drafterOf(model)));
      assert.deepEqual(drafted.tokenIds, tokenIds, `prompt of ${recorded}`);
      assert.ok(drafted.drafts.drafted > 24);
      const request = { id: recorded, tokenIds: prompt, generated: [], stopTokenIds: [], key: "k", priority: 1 };
      const served = await ask(engine, { ...request, sampling, maxTokens: 24, namespace: "n" }, null);
      assert.deepEqual(served, tokenIds, `served, prompt of ${recorded}`);
    }
    await engine.close();
  });

  for (const name of ["mtp", "official"]) {
    test(`MTP gives the recorded greedy tokens of ${name}`, async () => {
      const golden = await loadCase(name);
      await golden.checkpoint.close();
      using model = await loadModel(folderOf(`v4/${name}`), { drafting: "mtp", threads: 1, activations: "float32" });
      const expected = Array.from(golden.row("greedy.tokens", 0));
      const options = { temperature: 0, maxTokens: expected.length };
      const found = await decodeTokens(model.runner, golden.prompts[0]!, options, draftingOf(drafterOf(model)));
      assert.deepEqual(found.tokenIds, expected);
      assert.ok(found.drafts.drafted > expected.length);
    });
  }
});

/** Right in about half of its drafts, for the module knows the texts; all the same it computes its own. */
function half(module: ModelDrafter, texts: readonly (readonly number[])[], seed: number): ModelDrafter {
  const random = randomNumbers(seed);
  return {
    kind: module.kind,
    mostTokens: module.mostTokens,
    isChained: module.isChained,
    async draft(requests) {
      const drafts = await module.draft(requests);
      return requests.map(({ sequence, anchor }, i) => {
        const known = [...sequence.tokenIds, anchor];
        const whole = texts.find((candidate) => known.every((id, p) => candidate[p] === id));
        if (whole === undefined) return drafts[i]!;
        const right = Math.floor(random() * 4);
        return drafts[i]!.map((id, place) => (place < right ? (whole[known.length + place] ?? id) : id));
      });
    },
  };
}

/** Lengths of drafts: none, some, or more than a module gives. */
function lengths(seed: number): () => number {
  const random = randomNumbers(seed + 1);
  return () => Math.floor(random() * 7);
}

function ask(engine: Pick<BatchEngine, "submit" | "cancel">, request: EngineRequest, cancelAfter: number | null) {
  const { promise, resolve, reject } = Promise.withResolvers<number[]>();
  const ids: number[] = [];
  engine.submit(request, (event) => {
    if (event.type === "tokens") ids.push(...event.ids);
    if (cancelAfter !== null && ids.length >= cancelAfter) engine.cancel(request.id);
    if (event.type === "end") resolve(ids);
    if (event.type === "error") reject(new Error(event.error.message));
  });
  return promise;
}

/** At lengths around the borders of pages: drafts of two tokens or a block, bit by bit. */
async function checkSequences(model: Model, text: readonly number[]): Promise<void> {
  const { runner } = model;
  const module = drafterOf(model);
  const rows = await CacheRows.of(runner);
  const draft = async (sequence: Sequence, anchor: number) => {
    const logits: Float32Array[] = [];
    const choose = (row: Float32Array) => {
      logits.push(row.slice());
      return mostProbable(row);
    };
    await module.draft([{ sequence, anchor, count: 3, choose }]);
    assert.equal(logits.length, 3);
    return logits;
  };
  const fresh = async (tokenIds: readonly number[]) => {
    const sequence = runner.createSequence();
    await runner.append({ sequence, tokenIds, outputs: 0 });
    return sequence;
  };
  const own = (length: number) => [...text.slice(0, length), 3, 4];
  for (const length of [1, 2, 31, 32, 33, 64, 127, 128, 129, 160]) {
    using sequence = await fresh(text.slice(0, length));
    await draft(sequence, 2); // what it leaves behind is nobody's
    using fork = sequence.fork();
    await runner.append({ sequence, tokenIds: [3, 4], outputs: 0 });
    await runner.append({ sequence: fork, tokenIds: [5], outputs: 0 });
    await draft(fork, 6);
    using expected = await fresh(own(length));
    const wanted = await draft(expected, 9);
    assert.deepEqual(await draft(sequence, 9), wanted, `forked at ${length}`);
    await runner.append({ sequence, tokenIds: text.slice(20, 60), outputs: 0 });
    sequence.rewind(40);
    assert.deepEqual(await draft(sequence, 9), wanted, `wound back to ${length + 2}`);
    fork.rewind(1);
    await runner.append({ sequence: fork, tokenIds: [3, 4], outputs: 0 });
    assert.deepEqual(await draft(fork, 9), wanted, `a fork that was wound back to ${length}`);
    await checkRestored(model, rows, sequence, async (restored) => {
      assert.deepEqual(await draft(restored, 9), wanted, `restored at ${length + 2}`);
    });
  }
}

/** A sequence that is written out and read back: whole blocks of the growing caches, and the rows that its next token reads. */
async function checkRestored(
  { runner }: Model,
  rows: CacheRows,
  sequence: Sequence,
  check: (restored: Sequence) => Promise<void>,
): Promise<void> {
  const cache = runner.createSequence().cache;
  for (let block = 0; (block + 1) * 128 <= sequence.length; block++) {
    const bytes = await rows.readBlock(sequence.cache, block);
    rows.writeBlock(cache, block, bytes);
  }
  rows.writeFrontier(cache, sequence.length, await rows.readFrontier(sequence.cache));
  using restored = runner.adoptSequence(cache, sequence.tokenIds);
  await check(restored);
}
