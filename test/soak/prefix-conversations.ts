/**
 * Random conversations that branch, on random small models: whatever a prompt finds in memory or on disk, the logits behind it are
 * bitwise those of a sequence that was computed from the first token on. Pages that nobody holds are filled with NaN all the time, so
 * that a row that was not restored cannot be right by chance.
 */
import assert from "node:assert/strict";
import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { PrefixCache } from "../../src/engine/cache/prefix-cache.ts";
import type { ModelRunner, Sequence } from "../../src/engine/model-runner.ts";
import type { ModelConfig } from "../../src/model/config.ts";
import { layoutName } from "../../src/tensor/paging.ts";
import { randomNumbers, type SmallModelName, smallConfigs, smallModel, smallV41 } from "../small-model.ts";

export interface ConversationCounts {
  rounds: number;
  hits: number;
  fromDisk: number;
  cachedTokens: number;
  promptTokens: number;
  evictions: number;
  reopened: number;
}

const roundsOfWorld = 50;
const mostTokens = 1400;

export interface ConversationsTask {
  readonly rounds: number;
  readonly seed: number;
  readonly model: SmallModelName;
}

export async function branchingConversations({ rounds, seed, model }: ConversationsTask): Promise<ConversationCounts> {
  const counts = { rounds: 0, hits: 0, fromDisk: 0, cachedTokens: 0, promptTokens: 0, evictions: 0, reopened: 0 };
  for (let world = 0; counts.rounds < rounds; world++) {
    const random = randomNumbers((seed + world) * 7919);
    const { runner, device } = await smallModel(randomShapes[model](random), seed + world);
    const directory = await mkdtemp(join(tmpdir(), "freehold-conversations-"));
    try {
      const end = Math.min(rounds, counts.rounds + roundsOfWorld);
      // Room in memory for nothing, for a few conversations, for all.
      const pageBytes = runner.cache.layouts.reduce((sum, { pageValues }) => sum + 4 * pageValues, 0);
      const memoryBudgetBytes = [0, 30 * pageBytes, 1 << 30][world % 3]!;
      const setting = { runner, directory, memoryBudgetBytes };
      await new World(setting, random, counts).run(end, `${model}, seed ${seed}, world ${world}`);
    } finally {
      await rm(directory, { recursive: true });
      device[Symbol.dispose]();
    }
  }
  return counts;
}

const randomShapes: Readonly<Record<SmallModelName, (random: () => number) => ModelConfig>> = {
  v4(random) {
    const compressRatios = Array.from({ length: pick(random, 2, 3, 4) }, () => pick(random, 0, 4, 128) as 0 | 4 | 128);
    const hashRouted = compressRatios.map((_, l) => l === 0);
    const slidingWindow = pick(random, 1, 3, 24, 32, 128);
    return { ...smallConfigs.v4, numLayers: compressRatios.length, compressRatios, hashRouted, slidingWindow };
  },
  /** Sources at the beginning of each kind of group, and some between; with a pool and without. */
  "v4.1"(random) {
    const ratios = [0, 2, 1].flatMap((ratio) => new Array<number>(pick(random, 0, 1, 2)).fill(ratio));
    if (ratios.length === 0) ratios.push(1);
    const isFirst = (l: number) => ratios[l] !== 0 && ratios[l] !== ratios[l - 1];
    const layers = [...ratios.keys()];
    const entries = layers.filter((l) => isFirst(l) || (ratios[l] === 2 && pick(random, true, false)));
    const indexers = layers.filter((l) => entries.includes(l) || (ratios[l] !== 0 && pick(random, true, false)));
    return smallV41({
      num_hidden_layers: ratios.length,
      compress_ratios: ratios,
      kv_source_layer_ids: entries,
      index_source_layer_ids: indexers,
      candidate_source_layer_id: pick(random, -1, entries.at(-1) ?? -1),
      sliding_window: pick(random, 1, 3, 24, 32, 128),
    });
  },
};

function pick<T>(random: () => number, ...values: T[]): T {
  return values[Math.floor(random() * values.length)]!;
}

interface Setting {
  readonly runner: ModelRunner;
  readonly directory: string;
  readonly memoryBudgetBytes: number;
}

class World {
  readonly #runner: ModelRunner;
  readonly #directory: string;
  readonly #memoryBudgetBytes: number;
  readonly #random: () => number;
  readonly #counts: ConversationCounts;
  /** What clients said and heard, by namespace. */
  readonly #histories: { namespace: string; tokenIds: number[] }[] = [];

  constructor({ runner, directory, memoryBudgetBytes }: Setting, random: () => number, counts: ConversationCounts) {
    this.#runner = runner;
    this.#directory = directory;
    this.#memoryBudgetBytes = memoryBudgetBytes;
    this.#random = random;
    this.#counts = counts;
  }

  async run(end: number, where: string): Promise<void> {
    const memoryBudgetBytes = this.#memoryBudgetBytes;
    const store = { directory: this.#directory, budgetBytes: 32 << 20, segmentBytes: 256 << 10, reserveBytes: 0 };
    const open = () =>
      PrefixCache.open({ runner: this.#runner, modelDigest: "m", memoryBudgetBytes, store, now: () => 0 });
    let cache = await open();
    while (this.#counts.rounds < end) {
      await this.#round(cache, `${where}, round ${this.#counts.rounds++}`);
      if (this.#below(6) > 0) continue;
      await this.#close(cache, where);
      cache = await open();
      this.#counts.reopened++;
    }
    await this.#close(cache, where);
  }

  async #close(cache: PrefixCache, where: string): Promise<void> {
    this.#counts.evictions += cache.counters.evictions;
    assert.equal(cache.counters.corruptRecords, 0, where);
    assert.equal(cache.droppedWrites, 0, where);
    await cache.close();
    for (const { name, pool } of this.#runner.cache.layouts)
      assert.equal(pool.used, 0, `${where}: ${name} leaks pages`);
  }

  /** One prompt, or two at the same time; an answer; the end is remembered. */
  async #round(cache: PrefixCache, where: string): Promise<void> {
    this.#poisonFreePages();
    const prompts = Array.from({ length: this.#below(4) === 0 ? 2 : 1 }, () => this.#nextPrompt());
    const read = cache.counters.diskReadBytes;
    const sequences = await Promise.all(prompts.map(({ namespace, tokenIds }) => cache.resume(namespace, tokenIds)));
    if (cache.counters.diskReadBytes > read) this.#counts.fromDisk++;
    for (const [i, sequence] of sequences.entries()) {
      const { namespace, tokenIds } = prompts[i]!;
      assert.ok(sequence.length < tokenIds.length, where);
      this.#counts.promptTokens += tokenIds.length;
      this.#counts.cachedTokens += sequence.length;
      if (sequence.length > 0) this.#counts.hits++;
      await this.#answer(cache, namespace, sequence, tokenIds, where);
      sequence[Symbol.dispose]();
    }
    if (this.#below(2) === 0) await cache.flush();
    this.#checkPages(cache, where);
  }

  async #answer(cache: PrefixCache, namespace: string, sequence: Sequence, tokenIds: number[], where: string) {
    const cached = sequence.length;
    const outputs = Math.min(tokenIds.length - cached, 4);
    const logits = await this.#runner.append({ sequence, tokenIds: tokenIds.slice(cached), outputs });
    await this.#compare(tokenIds, logits, `${where}: ${cached} of ${tokenIds.length} tokens were known`);
    if (this.#below(2) === 0) cache.remember(namespace, sequence, { isFinal: false });
    const answer = this.#tokens(1 + this.#below(60));
    await this.#runner.append({ sequence, tokenIds: answer, outputs: 0 });
    if (this.#below(3) === 0) {
      // A draft that was wrong: the sequence is wound back and goes on otherwise.
      const wrong = Math.min(answer.length, 1 + this.#below(8));
      sequence.rewind(wrong);
      answer.splice(-wrong);
      const [again] = await this.#runner.append({ sequence, tokenIds: [5], outputs: 1 });
      answer.push(5);
      await this.#compare([...tokenIds, ...answer], [again!], `${where}: behind a rewind of ${wrong}`);
    }
    cache.remember(namespace, sequence, { isFinal: this.#below(5) > 0 });
    this.#histories.push({ namespace, tokenIds: [...tokenIds, ...answer] });
  }

  async #compare(tokenIds: number[], logits: readonly Float32Array[], where: string): Promise<void> {
    using cold = this.#runner.createSequence();
    const expected = await this.#runner.append({ sequence: cold, tokenIds, outputs: logits.length });
    assert.deepEqual(logits, expected, where);
  }

  /** The next turn of a conversation, an earlier point of one, the same prompt again, or a new one. */
  #nextPrompt(): { namespace: string; tokenIds: number[] } {
    const history = this.#histories.at(-1 - this.#below(Math.min(12, this.#histories.length || 1)));
    const fresh = { namespace: `tenant ${this.#below(2)}`, tokenIds: this.#tokens(1 + this.#below(500)) };
    if (history === undefined || history.tokenIds.length > mostTokens || this.#below(8) === 0) return fresh;
    const { namespace, tokenIds } = history;
    const cut = this.#below(3) === 0 ? 1 + this.#below(tokenIds.length) : tokenIds.length;
    const added = this.#below(6) === 0 ? [] : this.#tokens(1 + this.#below(200));
    const isOtherTenant = this.#below(10) === 0;
    return { namespace: isOtherTenant ? "tenant 2" : namespace, tokenIds: [...tokenIds.slice(0, cut), ...added] };
  }

  #tokens(count: number): number[] {
    return Array.from({ length: count }, () => this.#below(this.#runner.config.vocabSize));
  }

  #below(limit: number): number {
    return Math.floor(this.#random() * limit);
  }

  #poisonFreePages(): void {
    for (const { name, pageRows, pool } of this.#runner.cache.layouts) {
      const caches = [...this.#runner.program.graph.caches.values()].filter(
        ({ storage }) => layoutName(storage.layout) === name,
      );
      for (let page = 0; page < pool.size; page++) {
        if (pool.users(page) > 0) continue;
        for (const { storage } of caches) {
          const rows = new Float32Array(pageRows * storage.width).fill(Number.NaN);
          this.#runner.program.writeCache(storage.name, page * pageRows, rows);
        }
      }
    }
  }

  /** Free and used pages are all pages, and the bytes that are counted are those of the pages that are used. */
  #checkPages(cache: PrefixCache, where: string): void {
    let bytes = 0;
    for (const { pool, pageValues } of this.#runner.cache.layouts) {
      const used = Array.from({ length: pool.size }, (_, page) => pool.users(page)).filter((users) => users > 0);
      assert.equal(pool.used, used.length, where);
      bytes += 4 * pageValues * used.length;
    }
    const { memoryBytes, memoryBudgetBytes } = cache.counters;
    assert.ok(memoryBytes <= memoryBudgetBytes, `${where}: ${memoryBytes} of ${memoryBudgetBytes} bytes`);
    assert.ok(memoryBytes <= bytes, `${where}: ${memoryBytes} bytes are counted, ${bytes} are used`);
  }
}
