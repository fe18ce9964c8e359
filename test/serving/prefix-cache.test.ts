/** The prefix cache, in memory and on disk: what it gives is bitwise what computing gives, and it never costs more than a miss. */
import assert from "node:assert/strict";
import { mkdtemp, readdir, readFile, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { describe, test } from "node:test";
import { ReferenceDevice } from "../../src/device/reference/reference-device.ts";
import { PrefixCache } from "../../src/engine/cache/prefix-cache.ts";
import { embeddedModel, loadModel } from "../../src/engine/load-model.ts";
import { digestOfModel } from "../../src/engine/model-digest.ts";
import type { ModelRunner } from "../../src/engine/model-runner.ts";
import { ProcessDevice } from "../../src/engine/process-device.ts";
import { randomNumbers, smallConfigs, smallModel, smallModelNames, smallRunner } from "../small-model.ts";
import { flipCacheBits } from "../soak/cache-flips.ts";
import { killCacheWriters } from "../soak/cache-kills.ts";
import { branchingConversations } from "../soak/prefix-conversations.ts";

/** FREEHOLD_TEST_ROUNDS=1000, FREEHOLD_TEST_KILLS=300 and FREEHOLD_TEST_FLIPS=20000 are the long forms. */
const rounds = Number(process.env.FREEHOLD_TEST_ROUNDS ?? 150);
const kills = Number(process.env.FREEHOLD_TEST_KILLS ?? 4);
const flips = Number(process.env.FREEHOLD_TEST_FLIPS ?? 100);

for (const name of smallModelNames) {
  describe(`the prefix cache, ${name}`, () => {
    test(`${rounds} turns of conversations that branch: logits behind a hit are bitwise the cold ones`, async (t) => {
      const counts = await branchingConversations({ rounds, seed: 1, model: name });
      t.diagnostic(JSON.stringify(counts));
      assert.ok(counts.hits > rounds / 3, `${counts.hits} hits`);
      assert.ok(counts.fromDisk > rounds / 20, `${counts.fromDisk} times from disk`);
      assert.ok(counts.evictions > 0 && counts.reopened > 0);
    });

    test(`of a process that is killed ${kills} times has all that was acknowledged`, async (t) => {
      const counts = await killCacheWriters({ rounds: kills, seed: 1, model: name });
      t.diagnostic(JSON.stringify(counts));
      assert.ok(counts.acknowledged > kills);
    });

    test(`with ${flips} turned bits gives misses or the same bytes`, async (t) => {
      const counts = await flipCacheBits({ rounds: flips, seed: 1, model: name });
      t.diagnostic(JSON.stringify(counts));
      assert.ok(counts.misses > flips / 10 && counts.cachedTokens > 0);
    });
  });
}

const tokensOf = (count: number, seed = 5): number[] => {
  const random = randomNumbers(seed);
  return Array.from({ length: count }, () => Math.floor(random() * 61));
};

async function inDirectory(work: (directory: string) => Promise<void>): Promise<void> {
  const directory = await mkdtemp(join(tmpdir(), "freehold-prefix-"));
  try {
    await work(directory);
  } finally {
    await rm(directory, { recursive: true, force: true });
  }
}

interface Setting {
  readonly directory?: string;
  readonly memory?: number;
  readonly model?: string;
  readonly mostWaitingBytes?: number;
  readonly now?: () => number;
}

function openCache(runner: ModelRunner, { directory, memory = 1 << 30, model = "m", now, ...rest }: Setting) {
  const store = directory ? { directory, budgetBytes: 64 << 20, reserveBytes: 0, ...rest } : ("off" as const);
  return PrefixCache.open({ runner, modelDigest: model, memoryBudgetBytes: memory, store, now: now ?? (() => 0) });
}

/** Computes a sequence and remembers it as final. */
async function compute(cache: PrefixCache, runner: ModelRunner, tokenIds: number[], namespace = "a"): Promise<void> {
  using sequence = await cache.resume(namespace, [...tokenIds, 0]);
  await runner.append({ sequence, tokenIds: tokenIds.slice(sequence.length), outputs: 0 });
  cache.remember(namespace, sequence, { isFinal: true });
  await cache.flush();
}

async function known(cache: PrefixCache, tokenIds: number[], namespace = "a"): Promise<number> {
  using sequence = await cache.resume(namespace, tokenIds);
  return sequence.length;
}

async function assertExact(cache: PrefixCache, runner: ModelRunner, tokenIds: number[], where = ""): Promise<number> {
  using warm = await cache.resume("a", tokenIds);
  const found = warm.length;
  const logits = await runner.append({ sequence: warm, tokenIds: tokenIds.slice(found), outputs: 1 });
  using cold = runner.createSequence();
  assert.deepEqual(logits, await runner.append({ sequence: cold, tokenIds, outputs: 1 }), where);
  return found;
}

for (const [name, config] of Object.entries(smallConfigs)) {
  describe(`a hit of the prefix cache, ${name}`, () => {
    test("leaves the last token of a prompt to be computed, and winds back what was remembered beyond it", async () => {
      const { runner, device } = await smallModel(config);
      using _ = device;
      const cache = await openCache(runner, {});
      const tokenIds = tokensOf(400);
      await compute(cache, runner, tokenIds);
      assert.equal(await known(cache, tokenIds), 399);
      assert.equal(await known(cache, [...tokenIds, 1, 2]), 400);
      assert.equal(await known(cache, tokenIds.slice(0, 380)), 379);
      assert.equal(await known(cache, [...tokenIds.slice(0, 390), 60, 60, 60]), 390 + (tokenIds[390] === 60 ? 1 : 0));
      assert.equal(await known(cache, tokenIds.slice(0, 200)), 0, "so far back the window is gone");
      assert.equal(await known(cache, []), 0);
      assert.equal(await known(cache, [tokenIds[0]!]), 0);
      assert.deepEqual([cache.counters.lookups, cache.counters.hits], [8, 4]);
      await cache.close();
    });

    test("never comes from another namespace, another model, or another arithmetic, in memory or on disk", () =>
      inDirectory(async (directory) => {
        const { runner, device } = await smallModel(config);
        using _ = device;
        const tokenIds = tokensOf(400);
        let cache = await openCache(runner, { directory });
        await compute(cache, runner, tokenIds);
        assert.equal(await known(cache, tokenIds, "b"), 0);
        await cache.close();
        cache = await openCache(runner, { directory });
        assert.equal(await known(cache, tokenIds, "b"), 0);
        assert.equal(await known(cache, [...tokenIds, 1]), 400);
        await cache.close();
        cache = await openCache(runner, { directory, model: "another" });
        assert.equal(await known(cache, [...tokenIds, 1]), 0);
        await cache.close();
        const other = await smallModel(config, 2); // same shapes, other weights, and a digest that does not tell
        using _other = other.device;
        cache = await openCache(other.runner, { directory });
        assert.equal(await known(cache, [...tokenIds, 1]), 0);
        await cache.close();
      }));

    test("on disk is read once for many prompts, and shares the pages of blocks that memory has", () =>
      inDirectory(async (directory) => {
        const { runner, device } = await smallModel(config);
        using _ = device;
        const tokenIds = tokensOf(1300);
        let cache = await openCache(runner, { directory });
        await compute(cache, runner, tokenIds.slice(0, 1000));
        await compute(cache, runner, tokenIds);
        await cache.close();
        cache = await openCache(runner, { directory });
        const prompts = Array.from({ length: 5 }, (_, i) => [...tokenIds.slice(0, 1000), i, i]);
        const found = await Promise.all(prompts.map((prompt) => cache.resume("a", prompt)));
        assert.deepEqual(
          found.map(({ length }) => length),
          [1000, 1000, 1000, 1000, 1000],
        );
        const first = cache.counters.diskReadBytes;
        for (const sequence of found) sequence[Symbol.dispose]();
        assert.equal(await assertExact(cache, runner, [...tokenIds, 3]), 1300);
        const second = cache.counters.diskReadBytes - first;
        assert.ok(second < first / 2, `${first} bytes for 1000 tokens, then ${second} for 300 more`);
        await cache.close();
      }));

    for (const kind of ["reference", "process"] as const)
      test(`is exact on the ${kind} device, after the cache was opened again`, () =>
        inDirectory(async (directory) => {
          using device = kind === "reference" ? new ReferenceDevice() : await ProcessDevice.start({ threads: 1 });
          const runner = await smallRunner(config, device, 4);
          const tokenIds = tokensOf(301);
          let cache = await openCache(runner, { directory });
          await compute(cache, runner, tokenIds);
          await cache.close();
          cache = await openCache(runner, { directory });
          assert.equal(await assertExact(cache, runner, [...tokenIds, 7, 8]), 301);
          await cache.close();
        }));
  });
}

describe("a hit of the prefix cache, embedded model", () => {
  test("is exact with the embedded model, from memory and from disk", () =>
    inDirectory(async (directory) => {
      using model = await loadModel();
      const { runner } = model;
      const digest = await digestOfModel(embeddedModel);
      const tokenIds = Array.from({ length: 600 }, (_, i) => 300 + ((i * 37) % 3000));
      let cache = await openCache(runner, { directory, model: digest });
      await compute(cache, runner, tokenIds);
      assert.equal(await assertExact(cache, runner, [...tokenIds, 7, 8]), 600);
      await cache.close();
      cache = await openCache(runner, { directory, model: digest });
      assert.equal(await assertExact(cache, runner, [...tokenIds, 7, 8]), 600);
      await cache.close();
    }));
});

for (const [name, config] of Object.entries(smallConfigs)) {
  describe(`the memory of the prefix cache, ${name}`, () => {
    test("keeps to its budget in unique bytes; a running sequence keeps what is forgotten", async () => {
      const { runner, device } = await smallModel(config);
      using _ = device;
      const clock = { ms: 0 };
      const cache = await openCache(runner, { memory: 400_000, now: () => clock.ms });
      const first = tokensOf(500, 1);
      await compute(cache, runner, first);
      const alone = cache.counters.memoryBytes;
      using running = await cache.resume("a", [...first, 1]);
      await compute(cache, runner, [...first, 5]);
      assert.ok(cache.counters.memoryBytes < 1.5 * alone, "the second shares the blocks of the first");
      for (let i = 2; i < 12; i++) {
        clock.ms += 3_600_000;
        await compute(cache, runner, tokensOf(500, i));
        assert.ok(cache.counters.memoryBytes <= 400_000);
      }
      assert.ok(cache.counters.evictions > 5);
      assert.equal(await known(cache, [...first, 1]), 0, "what was not used went first");
      assert.equal(await known(cache, [...tokensOf(500, 11), 1]), 500);
      const [logits] = await runner.append({ sequence: running, tokenIds: [1], outputs: 1 });
      using cold = runner.createSequence();
      assert.deepEqual([logits], await runner.append({ sequence: cold, tokenIds: [...first, 1], outputs: 1 }));
      await cache.close();
    });

    test("what is used often outlives what is newer, and what a waiting request will find is not given back", async () => {
      const { runner, device } = await smallModel(config);
      using _ = device;
      const clock = { ms: 0 };
      const cache = await openCache(runner, { memory: 600_000, now: () => clock.ms });
      const often = tokensOf(500, 1);
      const pinned = tokensOf(500, 2);
      await compute(cache, runner, pinned);
      await compute(cache, runner, often);
      const pin = cache.pin("a", [...pinned, 4]);
      for (let i = 3; i < 14; i++) {
        clock.ms += 60_000;
        assert.equal(await known(cache, [...often, 1]), 500);
        await compute(cache, runner, tokensOf(500, i));
      }
      assert.equal(await known(cache, [...often, 1]), 500);
      assert.equal(await known(cache, [...pinned, 4]), 500);
      pin[Symbol.dispose]();
      pin[Symbol.dispose]();
      cache.evict(1 << 30);
      assert.equal(cache.counters.memoryBytes, 0);
      await cache.close();
    });

    test("gives way to running sequences, but for a last quarter of its memory", async () => {
      const { runner, device } = await smallModel(config);
      using _ = device;
      const budget = 1_000_000;
      const cache = await openCache(runner, { memory: budget });
      const fill = async (from: number) => {
        for (let i = from; i < from + 12; i++) await compute(cache, runner, tokensOf(500, i));
      };
      await fill(0);
      const full = cache.counters.memoryBytes;
      assert.ok(full > 0.7 * budget && full <= budget, `${full} bytes`);
      cache.leaveRoom(budget / 2);
      assert.ok(cache.counters.memoryBytes <= budget / 2);
      await fill(20);
      assert.ok(cache.counters.memoryBytes <= budget / 2, "what is remembered meanwhile gives way as well");
      cache.leaveRoom(10 * budget);
      const least = cache.counters.memoryBytes;
      assert.ok(least > 0 && least <= budget / 4, `${least} bytes`);
      cache.leaveRoom(0);
      await fill(40);
      assert.ok(cache.counters.memoryBytes > 0.7 * budget, "there is room again");
      await cache.close();
    });

    test("2,000 sequences that were dropped in all ways leave no page behind", async () => {
      const { runner, device } = await smallModel(config);
      using _ = device;
      const cache = await openCache(runner, { memory: 300_000 });
      const random = randomNumbers(9);
      const base = tokensOf(200);
      await compute(cache, runner, base);
      for (let i = 0; i < 2000; i++) {
        const prompt = [...base.slice(0, 150 + Math.floor(random() * 50)), i % 61, (i >> 6) % 61, 3];
        const sequence = await cache.resume("a", prompt);
        if (random() < 0.3) {
          await runner.append({ sequence, tokenIds: prompt.slice(sequence.length), outputs: 0 });
          if (random() < 0.5) cache.remember("a", sequence, { isFinal: random() < 0.5 });
          if (random() < 0.3) sequence.rewind(2);
        }
        sequence[Symbol.dispose]();
      }
      assert.ok(cache.counters.memoryBytes <= 300_000);
      await cache.close();
      for (const { name, pool } of runner.cache.layouts) assert.equal(pool.used, 0, name);
    });
  });
}

for (const [name, config] of Object.entries(smallConfigs)) {
  describe(`the disk of the prefix cache, ${name}`, () => {
    test("when too much waits to be written, stops on the way are dropped and the end of an answer is kept", () =>
      inDirectory(async (directory) => {
        const { runner, device } = await smallModel(config);
        using _ = device;
        const cache = await openCache(runner, { directory, mostWaitingBytes: 1 });
        const sequences = [];
        for (let i = 0; i < 4; i++) {
          const sequence = runner.createSequence();
          await runner.append({ sequence, tokenIds: tokensOf(2100, i), outputs: 0 });
          sequences.push(sequence);
        }
        // The first is being written when the others come; only one may wait.
        for (const [i, sequence] of sequences.entries()) cache.remember("a", sequence, { isFinal: i === 3 });
        for (const sequence of sequences) sequence[Symbol.dispose]();
        await cache.flush();
        assert.equal(cache.droppedWrites, 2);
        await cache.close();
        for (const { name, pool } of runner.cache.layouts) assert.equal(pool.used, 0, name);
        const again = await openCache(runner, { directory });
        const found = [];
        for (let i = 0; i < 4; i++) found.push(await known(again, [...tokensOf(2100, i), 1]));
        assert.deepEqual(found, [2100, 0, 0, 2100]);
        await again.close();
      }));

    test("that is damaged anywhere costs a miss: the logits are the cold ones, and what was lost is written again", () =>
      inDirectory(async (directory) => {
        const { runner, device } = await smallModel(config);
        using _ = device;
        const tokenIds = tokensOf(700);
        let cache = await openCache(runner, { directory });
        await compute(cache, runner, tokenIds.slice(0, 333));
        await compute(cache, runner, tokenIds);
        await cache.close();
        const path = join(directory, "seg-000001.v4k");
        const image = await readFile(path);
        const random = randomNumbers(77);
        let detours = 0;
        for (let round = 0; round < 15; round++) {
          const damaged = Buffer.from(image);
          const at = Math.floor(random() * image.length);
          damaged[at]! ^= 1 << Math.floor(random() * 8);
          await writeFile(path, damaged);
          cache = await openCache(runner, { directory });
          const found = await assertExact(cache, runner, [...tokenIds, 9], `byte ${at}`);
          if (found < 700) {
            detours++;
            assert.ok(cache.counters.corruptRecords > 0, `byte ${at}`);
            await compute(cache, runner, tokenIds);
            await cache.close();
            cache = await openCache(runner, { directory });
            assert.equal(await known(cache, [...tokenIds, 9]), 700, `byte ${at}: written again`);
          }
          await cache.close();
          for (const name of await readdir(directory)) await rm(join(directory, name));
          await writeFile(path, image);
        }
        assert.ok(detours > 5, `${detours} detours`);
      }));

    test("that is in use by another cache, or refuses to be written, leaves a cache in memory that says why", () =>
      inDirectory(async (directory) => {
        const { runner, device } = await smallModel(config);
        using _ = device;
        const first = await openCache(runner, { directory });
        const second = await openCache(runner, { directory });
        assert.equal(second.counters.diskState, "off");
        assert.match(second.diskReason, /used by process/);
        await compute(second, runner, tokensOf(300));
        assert.equal(await known(second, [...tokensOf(300), 1]), 300);
        assert.equal(await second.forget("a"), false, "what the other one wrote is still there");
        await second.close();
        await first.close();
        await writeFile(join(directory, "file"), "");
        const third = await openCache(runner, { directory: join(directory, "file", "below") });
        assert.equal(third.counters.diskState, "read-only");
        await compute(third, runner, tokensOf(300));
        assert.equal(await assertExact(third, runner, [...tokensOf(300), 1]), 300);
        await third.close();
      }));

    test("stops on the way are written every 2,048 tokens: a prompt that branches off goes on from the last one", () =>
      inDirectory(async (directory) => {
        const { runner, device } = await smallModel(config);
        using _ = device;
        const tokenIds = tokensOf(6000);
        let cache = await openCache(runner, { directory });
        using sequence = await cache.resume("a", tokenIds);
        for (let done = 0; done < 6000; done += 500) {
          await runner.append({ sequence, tokenIds: tokenIds.slice(done, done + 500), outputs: 0 });
          cache.remember("a", sequence, { isFinal: false });
          await cache.flush();
        }
        await cache.close();
        cache = await openCache(runner, { directory });
        assert.equal(await known(cache, [...tokenIds.slice(0, 5900), 1, 2]), 5000);
        assert.equal(await known(cache, [...tokenIds.slice(0, 4900), 1, 2]), 2500);
        await cache.close();
      }));

    test("what a namespace forgets is gone from memory and from every file", () =>
      inDirectory(async (directory) => {
        const { runner, device } = await smallModel(config);
        using _ = device;
        const cache = await openCache(runner, { directory });
        await compute(cache, runner, tokensOf(400), "a");
        await compute(cache, runner, tokensOf(400), "b");
        await cache.flush();
        assert.equal(await cache.forget("a"), true);
        const prompt = [...tokensOf(400), 1];
        assert.deepEqual([await known(cache, prompt, "a"), await known(cache, prompt, "b")], [0, 400]);
        await cache.close();
        const again = await openCache(runner, { directory });
        assert.deepEqual([await known(again, prompt, "a"), await known(again, prompt, "b")], [0, 400]);
        await again.close();
      }));
  });
}
