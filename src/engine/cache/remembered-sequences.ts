/**
 * The prefix cache in memory: forks of sequences, which share their pages with each other and with those that go on. A prompt finds
 * the fork that shares the most tokens with it, wound back if it must be. The budget counts each page once, however many forks hold
 * it; when it is exceeded, the fork goes whose memory is worth least:
 *   tokens that would have to be computed again x probability of use / bytes that nobody else holds
 */
import type { KvCache, SequenceCache } from "./kv-cache.ts";
import { PageUse } from "./page-use.ts";
import { depthBefore, PrefixIndex, type PrefixNode } from "./prefix-index.ts";

export interface RememberedOptions {
  readonly budgetBytes: number;
  /** Bytes of a value in a cache. */
  readonly valueBytes: number;
  /** Milliseconds; only differences matter. */
  readonly now: () => number;
}

interface Remembered {
  readonly id: number;
  readonly namespace: string;
  readonly tokenIds: Int32Array;
  readonly cache: SequenceCache;
  /** Uses, each halved every `halfLifeMs`, as they were at `lastUseMs`. */
  uses: number;
  lastUseMs: number;
  pins: number;
  node: PrefixNode<Remembered> | undefined;
}

export interface Found {
  readonly length: number;
  /** A fork that holds `length` tokens. The caller owns it. */
  take(): SequenceCache;
}

/** A conversation that was silent for so long is half as likely to go on. */
const halfLifeMs = 10 * 60_000;
/** Running requests that share a beginning are counted as if each had it: that beginning must not be forgotten for them. */
const leastShare = 1 / 4;

export class RememberedSequences {
  readonly budgetBytes: number;
  evictions = 0;
  /** Bytes of the budget that others use. */
  #left = 0;
  readonly #now: () => number;
  readonly #index = new PrefixIndex<Remembered>();
  readonly #all = new Map<number, Remembered>();
  readonly #pages: PageUse;
  #nextId = 1;

  constructor(cache: KvCache, { budgetBytes, valueBytes, now }: RememberedOptions) {
    this.budgetBytes = budgetBytes;
    this.#now = now;
    this.#pages = new PageUse(cache.layouts, valueBytes);
  }

  /** Bytes of the pages that are held, each counted once. */
  get bytes(): number {
    return this.#pages.bytes;
  }

  get size(): number {
    return this.#all.size;
  }

  /** The longest beginning of the prompt, of at most `most` tokens. */
  find(namespace: string, tokenIds: readonly number[], most: number): Found | undefined {
    let best: { entry: Remembered; length: number } | undefined;
    for (const { entry, length } of this.#candidates(namespace, tokenIds, most)) {
      if (length <= (best?.length ?? 0) || !entry.cache.canRewindTo(length)) continue;
      best = { entry, length };
    }
    if (best === undefined) return undefined;
    const { entry, length } = best;
    return { length, take: () => this.#take(entry, length) };
  }

  /** A remembered sequence that has at least this many first tokens of the prompt, for the pages of their whole blocks. */
  donor(namespace: string, tokenIds: readonly number[]): { cache: SequenceCache; length: number } | undefined {
    const { depth, whole, longer } = this.#index.match(namespace, tokenIds);
    const [beyond] = longer;
    if (beyond?.value !== undefined) return { cache: beyond.value.cache, length: depth };
    const [longest] = whole;
    return longest?.value && { cache: longest.value.cache, length: longest.depth };
  }

  /** Remembers a fork, which belongs to the cache from now on. */
  add(namespace: string, tokens: readonly number[], cache: SequenceCache): void {
    const known = this.#index.get(namespace, tokens);
    if (known !== undefined) {
      this.#count(known);
      cache.clear();
      return;
    }
    const tokenIds = Int32Array.from(tokens);
    const use = { uses: 1, lastUseMs: this.#now(), pins: 0 };
    const entry: Remembered = { id: this.#nextId++, namespace, tokenIds, cache, ...use, node: undefined };
    entry.node = this.#index.set(namespace, tokenIds, entry);
    this.#all.set(entry.id, entry);
    this.#pages.add(entry.id, cache);
    this.evict(this.bytes - this.#room, entry);
  }

  /** So many bytes of the budget are used by others: what is remembered gives way, but for a last quarter. */
  leave(bytes: number): void {
    this.#left = bytes;
    this.evict(this.bytes - this.#room);
  }

  get #room(): number {
    return Math.max(this.budgetBytes - this.#left, this.budgetBytes * leastShare);
  }

  /** What a waiting request will find is not given back before the pin is disposed of. */
  pin(namespace: string, tokenIds: readonly number[]): Disposable {
    const { whole, longer } = this.#index.match(namespace, tokenIds);
    const pinned = [...longer, ...whole].slice(0, 1).flatMap(({ value }) => (value === undefined ? [] : [value]));
    for (const entry of pinned) entry.pins++;
    return {
      [Symbol.dispose]: () => {
        for (const entry of pinned.splice(0)) entry.pins--;
      },
    };
  }

  /** Gives back at least this many bytes if that many are held by nobody else. `spared` stays if anything else can go. */
  evict(bytes: number, spared?: Remembered): void {
    const goal = this.bytes - bytes;
    while (this.bytes > goal) {
      const victim = this.#leastWorth(spared) ?? (spared && this.#canGo(spared) ? spared : undefined);
      if (victim === undefined) return;
      this.#remove(victim);
      this.evictions++;
    }
  }

  forget(namespace: string): void {
    for (const entry of this.#index.values(namespace)) this.#remove(entry);
  }

  clear(): void {
    for (const entry of [...this.#all.values()]) this.#remove(entry);
  }

  *#candidates(namespace: string, tokenIds: readonly number[], most: number) {
    const { depth, whole, longer } = this.#index.match(namespace, tokenIds);
    for (const { value, depth: length } of whole) yield { entry: value!, length: Math.min(length, most) };
    for (const { value } of longer) yield { entry: value!, length: Math.min(depth, most) };
  }

  #take(entry: Remembered, length: number): SequenceCache {
    this.#count(entry);
    const fork = entry.cache.fork();
    fork.rewindTo(length);
    return fork;
  }

  #count(entry: Remembered): void {
    entry.uses = this.#usesNow(entry) + 1;
    entry.lastUseMs = this.#now();
  }

  #usesNow({ uses, lastUseMs }: Remembered): number {
    return uses * 2 ** (-(this.#now() - lastUseMs) / halfLifeMs);
  }

  #leastWorth(spared: Remembered | undefined): Remembered | undefined {
    let least: Remembered | undefined;
    let worth = Number.POSITIVE_INFINITY;
    for (const entry of this.#all.values()) {
      if (entry === spared || !this.#canGo(entry)) continue;
      const candidate = this.#worth(entry);
      if (candidate < worth) [least, worth] = [entry, candidate];
    }
    return least;
  }

  /** Nothing goes that a waiting request counts on, nor what frees no byte because others hold all of it. */
  #canGo({ id, pins }: Remembered): boolean {
    return pins === 0 && this.#pages.exclusiveBytes(id) > 0;
  }

  /** The time to compute is nearly proportional to the tokens behind the nearest remembered beginning. */
  #worth(entry: Remembered): number {
    const tokens = entry.tokenIds.length - depthBefore(entry.node!);
    return (tokens * this.#usesNow(entry)) / this.#pages.exclusiveBytes(entry.id);
  }

  #remove(entry: Remembered): void {
    this.#index.delete(entry.namespace, entry.tokenIds);
    this.#all.delete(entry.id);
    this.#pages.remove(entry.id, entry.cache);
    entry.cache.clear();
  }
}
