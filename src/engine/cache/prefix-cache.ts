/**
 * What was computed, for those who ask for it again: forks of sequences in memory, and behind them a store on disk that outlives the
 * process. A prompt goes on from the longest beginning that is known, with bitwise the result of computing it anew: results do not
 * depend on how an input is cut, so any position is as good as any other.
 *
 * Both tiers keep namespaces apart. On disk the key also names the model, the rows of its caches and the arithmetic, tried on a few
 * tokens: another processor or another version of the kernels may differ in the last bit, and then finds nothing.
 */
import { createHash } from "node:crypto";
import type { CacheCounters } from "../batching/engine-port.ts";
import type { SequenceCachePort } from "../batching/sequence-cache-port.ts";
import type { ModelRunner, Sequence } from "../model-runner.ts";
import type { FileSystem } from "../store/file-system.ts";
import { KvStore } from "../store/kv-store.ts";
import type { RecordKey } from "../store/record.ts";
import { rootKey } from "../store/record-keys.ts";
import { CacheRows } from "./cache-rows.ts";
import type { SequenceCache } from "./kv-cache.ts";
import { RememberedSequences } from "./remembered-sequences.ts";
import { frontierTokens, StoredPrefixes } from "./stored-prefixes.ts";

export interface PrefixCacheOptions {
  readonly runner: ModelRunner;
  /** Names the model by its content: `modelDigest`. */
  readonly modelDigest: string;
  /** Bytes of caches that may be remembered; running sequences that take part of them are told by `leaveRoom`. */
  readonly memoryBudgetBytes: number;
  readonly store: StoreSettings | "off";
  /** Milliseconds; only differences matter. */
  readonly now?: () => number;
}

export interface StoreSettings {
  readonly directory: string;
  readonly budgetBytes: number;
  /** Bytes of sequences that may wait to be written. Default 256 MiB. */
  readonly mostWaitingBytes?: number;
  /** Bytes of the disk that stay free. Default 256 MiB. */
  readonly reserveBytes?: number;
  readonly segmentBytes?: number;
  readonly files?: FileSystem;
}

/** The disk is asked when it knows so many tokens more than memory does. */
const leastGain = 32;
/** Damaged records that one request goes past before it computes instead. */
const mostDetours = 8;

export class PrefixCache implements SequenceCachePort {
  readonly #runner: ModelRunner;
  readonly #names: readonly string[];
  readonly #memory: RememberedSequences;
  readonly #store: KvStore | undefined;
  readonly #disk: StoredPrefixes | undefined;
  /** Tokens of running sequences that are on disk, or were when it was asked last. */
  readonly #onDisk = new WeakMap<Sequence, number>();
  #lookups = 0;
  #hits = 0;
  #isClosed = false;
  /** Restoring happens one after another: the second of two equal prompts finds in memory what the first one read. */
  #restoring: Promise<unknown> = Promise.resolve();

  private constructor(options: PrefixCacheOptions, rows: CacheRows, store: KvStore | undefined, arithmetic: string) {
    const { runner, memoryBudgetBytes, now = () => performance.now() } = options;
    this.#runner = runner;
    this.#names = ["freehold kv 1", options.modelDigest, rows.format, arithmetic];
    const { valueBytes } = rows;
    this.#memory = new RememberedSequences(runner.cache, { budgetBytes: memoryBudgetBytes, valueBytes, now });
    this.#store = store;
    const mostWaitingBytes = (options.store !== "off" && options.store.mostWaitingBytes) || 256 << 20;
    this.#disk = store && new StoredPrefixes({ runner, rows, store, mostWaitingBytes });
  }

  /** Opens the store, whatever is in its directory; what does not work is told by `diskReason`, not thrown. */
  static async open(options: PrefixCacheOptions): Promise<PrefixCache> {
    const { runner, store: settings, now = () => performance.now() } = options;
    const rows = await CacheRows.of(runner);
    if (settings === "off") return new PrefixCache(options, rows, undefined, "");
    const store = await KvStore.open({ ...settings, now });
    return new PrefixCache(options, rows, store, await arithmeticOf(runner));
  }

  async resume(namespace: string, tokenIds: readonly number[]): Promise<Sequence> {
    this.#lookups++;
    const most = tokenIds.length - 1;
    if (most > 0 && this.#isAheadOnDisk(namespace, tokenIds)) {
      // A restore that fails for whatever reason is a miss.
      const turn = this.#restoring.then(() => this.#restore(namespace, tokenIds)).catch(() => undefined);
      this.#restoring = turn;
      const restored = await turn;
      if (restored !== undefined) {
        this.#hits++;
        return this.#runner.adoptSequence(restored, tokenIds.slice(0, restored.length));
      }
    }
    const found = this.#memory.find(namespace, tokenIds, most);
    if (found === undefined) return this.#runner.createSequence();
    this.#hits++;
    return this.#runner.adoptSequence(found.take(), tokenIds.slice(0, found.length));
  }

  remember(namespace: string, sequence: Sequence, options: { isFinal: boolean; isPromptEnd?: boolean }): void {
    const { cache, tokenIds, length } = sequence;
    if (this.#isClosed || length === 0 || cache.length !== length) return;
    if (options.isPromptEnd) this.#writePrompt(namespace, sequence);
    else this.#writeLater(namespace, sequence, options.isFinal);
    this.#memory.add(namespace, tokenIds, cache.fork());
  }

  /** Until it is disposed of, what this prompt will find in memory is not given back: for requests that wait. */
  pin(namespace: string, tokenIds: readonly number[]): Disposable {
    return this.#memory.pin(namespace, tokenIds);
  }

  leaveRoom(runningBytes: number): void {
    this.#memory.leave(runningBytes);
  }

  /** Gives memory back, at least so many bytes if so many are held for nobody else. */
  evict(bytes: number): void {
    this.#memory.evict(bytes);
  }

  /**
   * Forgets all that a namespace computed, in memory and on disk: the files that held it are rewritten without it. False when the
   * disk refused; what lies there is found again after a restart, so it has to be asked again.
   */
  async forget(namespace: string): Promise<boolean> {
    this.#memory.forget(namespace);
    await this.flush();
    return this.#store === undefined || this.#store.forget(this.#root(namespace));
  }

  get counters(): CacheCounters {
    const store = this.#store;
    return {
      lookups: this.#lookups,
      hits: this.#hits,
      memoryBytes: this.#memory.bytes,
      memoryBudgetBytes: this.#memory.budgetBytes,
      evictions: this.#memory.evictions,
      diskBytes: store?.totalBytes ?? 0,
      diskBudgetBytes: store?.budgetBytes ?? 0,
      diskReadBytes: store?.counters.readBytes ?? 0,
      diskWrittenBytes: store?.writtenBytes ?? 0,
      corruptRecords: store?.counters.corruptRecords ?? 0,
      diskState: store?.state ?? "off",
    };
  }

  /** Why `diskState` is not "on", for people. */
  get diskReason(): string {
    return this.#store?.reason ?? "switched off";
  }

  /** Sequences that were not written: too many waited, they are larger than half of the budget, or the disk refused. */
  get droppedWrites(): number {
    return this.#disk?.droppedWrites ?? 0;
  }

  async flush(): Promise<void> {
    await this.#disk?.flush();
  }

  async close(): Promise<void> {
    if (this.#isClosed) return;
    this.#isClosed = true;
    await this.#restoring;
    await this.flush();
    this.#memory.clear();
    await this.#store?.close();
  }

  /** Looking for what is on disk hashes all tokens of a sequence: of a long one not at every stop. */
  #writeLater(namespace: string, sequence: Sequence, isFinal: boolean): void {
    const isTooSoon = sequence.length - (this.#onDisk.get(sequence) ?? Number.NEGATIVE_INFINITY) < frontierTokens;
    if (this.#disk === undefined || (isTooSoon && !isFinal)) return;
    const fork = sequence.cache.fork();
    this.#onDisk.set(sequence, this.#disk.write(this.#root(namespace), sequence.tokenIds, fork, isFinal));
  }

  /** All but the last token: that one is always computed, and a sequence from disk cannot be wound back. */
  #writePrompt(namespace: string, { cache, tokenIds, length }: Sequence): void {
    if (this.#disk === undefined || !cache.canRewindTo(length - 1)) return;
    const fork = cache.fork();
    fork.rewindTo(length - 1);
    this.#disk.write(this.#root(namespace), tokenIds.slice(0, -1), fork, true);
  }

  #root(namespace: string): RecordKey {
    return rootKey(...this.#names, namespace);
  }

  #isAheadOnDisk(namespace: string, tokenIds: readonly number[]): boolean {
    const most = tokenIds.length - 1;
    const path = this.#disk?.find(this.#root(namespace), tokenIds, most);
    const inMemory = this.#memory.find(namespace, tokenIds, most)?.length ?? 0;
    return path !== undefined && path.length >= inMemory + leastGain;
  }

  /** Reads the longest way that is intact, and remembers it; undefined when memory has caught up meanwhile. */
  async #restore(namespace: string, tokenIds: readonly number[]): Promise<SequenceCache | undefined> {
    const most = tokenIds.length - 1;
    for (let detour = 0; detour <= mostDetours && this.#isAheadOnDisk(namespace, tokenIds); detour++) {
      const path = this.#disk!.find(this.#root(namespace), tokenIds, most)!;
      const cache = await this.#disk!.restore(path, this.#memory.donor(namespace, tokenIds));
      if (cache === undefined) continue;
      this.#memory.add(namespace, tokenIds.slice(0, path.length), cache.fork());
      return cache;
    }
    return undefined;
  }
}

/** The logits of a few fixed tokens, bit by bit: equal on what computes equally. */
async function arithmeticOf(runner: ModelRunner): Promise<string> {
  const { vocabSize } = runner.config;
  const tokenIds = Array.from({ length: 16 }, (_, i) => (i * 7919 + 3) % vocabSize);
  using sequence = runner.createSequence();
  const [logits] = await runner.append({ sequence, tokenIds, outputs: 1 });
  const bytes = new Uint8Array(logits!.buffer, logits!.byteOffset, logits!.byteLength);
  return `${runner.kernels} ${createHash("sha256").update(bytes).digest("hex")}`;
}
