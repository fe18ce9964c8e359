/**
 * The prefix cache on disk: blocks and frontiers of sequences in a KvStore. A prompt finds the longest path of blocks with a frontier;
 * what is written is what the path does not have yet. Writing waits in one queue, whose bytes are bounded: when too much waits, stops
 * on the way are dropped before ends of answers.
 */
import { blockTokens } from "../../tensor/paging.ts";
import type { ModelRunner } from "../model-runner.ts";
import type { KvStore } from "../store/kv-store.ts";
import type { RecordKey } from "../store/record.ts";
import { encodeDescription, type StoredRecord } from "../store/record-index.ts";
import { blockKey, frontierKey } from "../store/record-keys.ts";
import type { CacheRows } from "./cache-rows.ts";
import type { SequenceCache } from "./kv-cache.ts";

export interface StoredPrefixesOptions {
  readonly runner: ModelRunner;
  readonly rows: CacheRows;
  readonly store: KvStore;
  /** Bytes of sequences that wait to be written. */
  readonly mostWaitingBytes: number;
}

/** The way to a frontier. */
export interface StoredPath {
  readonly length: number;
  readonly blocks: readonly StoredRecord[];
  readonly frontier: StoredRecord;
}

interface WaitingWrite {
  readonly root: RecordKey;
  readonly tokenIds: Int32Array;
  /** A fork: nobody writes to it. */
  readonly cache: SequenceCache;
  readonly isFinal: boolean;
  readonly bytes: number;
}

/** Stops on the way are written when the last frontier of the path is so many tokens back. */
export const frontierTokens = 2048;
/** Bytes that are put into caches at once: a few milliseconds between two steps. */
const restoredAtOnce = 4 << 20;

export class StoredPrefixes {
  droppedWrites = 0;
  readonly #runner: ModelRunner;
  readonly #rows: CacheRows;
  readonly #store: KvStore;
  readonly #mostWaitingBytes: number;
  #waiting: WaitingWrite[] = [];
  #waitingBytes = 0;
  #writing: Promise<void> | undefined;

  constructor({ runner, rows, store, mostWaitingBytes }: StoredPrefixesOptions) {
    this.#runner = runner;
    this.#rows = rows;
    this.#store = store;
    this.#mostWaitingBytes = mostWaitingBytes;
  }

  /** The longest beginning of the prompt, of at most `most` tokens, that is on disk. */
  find(root: RecordKey, tokenIds: ArrayLike<number>, most: number): StoredPath | undefined {
    const { index } = this.#store;
    const blocks: StoredRecord[] = [];
    let best: { frontier: StoredRecord; count: number } | undefined;
    for (let parent = root; ; ) {
      const first = blocks.length * blockTokens;
      for (const frontier of index.frontiersOf(parent)) {
        const isLonger = frontier.position > (best?.frontier.position ?? 0);
        if (isLonger && frontier.position <= most && continues(tokenIds, first, frontier.tail))
          best = { frontier, count: blocks.length };
      }
      if (first + blockTokens > most) break;
      const block = index.blocks.get(blockKey(parent, tokenIds, first, blockTokens));
      if (block === undefined) break;
      blocks.push(block);
      parent = block.key;
    }
    return best && { length: best.frontier.position, frontier: best.frontier, blocks: blocks.slice(0, best.count) };
  }

  /**
   * A sequence with the state at the end of a path. Undefined when a record turns out damaged: it is forgotten then, and `find` finds
   * another way. Whole blocks that `donor` has are shared with it instead of read.
   */
  async restore(
    path: StoredPath,
    donor?: { cache: SequenceCache; length: number },
  ): Promise<SequenceCache | undefined> {
    const cache = this.#runner.cache.createSequence();
    let isComplete = false;
    try {
      const shared = Math.min(path.blocks.length, Math.floor((donor?.length ?? 0) / blockTokens));
      for (let block = 0; block < shared; block++) this.#rows.shareBlock(cache, donor!.cache, block);
      isComplete = (await this.#restoreBlocks(cache, path, shared)) && (await this.#restoreFrontier(cache, path));
      if (!isComplete) return undefined;
      for (const record of [...path.blocks, path.frontier]) this.#store.index.use(record);
      return cache;
    } finally {
      if (!isComplete) cache.clear();
    }
  }

  async #restoreBlocks(cache: SequenceCache, { blocks }: StoredPath, shared: number): Promise<boolean> {
    const atOnce = Math.max(1, Math.floor(restoredAtOnce / this.#rows.blockBytes));
    for (let first = shared; first < blocks.length; first += atOnce) {
      const payloads = await Promise.all(blocks.slice(first, first + atOnce).map((block) => this.#store.read(block)));
      if (payloads.includes(undefined)) return false;
      await this.#runner.betweenSteps(() => {
        for (const [i, payload] of payloads.entries()) this.#rows.writeBlock(cache, first + i, payload!);
      });
    }
    return true;
  }

  async #restoreFrontier(cache: SequenceCache, { frontier, length }: StoredPath): Promise<boolean> {
    const payload = await this.#store.read(frontier);
    if (payload === undefined) return false;
    await this.#runner.betweenSteps(() => this.#rows.writeFrontier(cache, length, payload));
    return true;
  }

  /**
   * Writes what the disk does not have of a sequence, some time later. The fork belongs to the queue from now on. Returns how many
   * tokens are on disk, or will be: before 2,048 more there is no need to ask again, unless for an end.
   */
  write(root: RecordKey, tokens: readonly number[], cache: SequenceCache, isFinal: boolean): number {
    const tokenIds = Int32Array.from(tokens);
    const { known, bytes } = this.#missing(root, tokenIds, isFinal);
    const isTooMuch = bytes > this.#store.budgetBytes / 2;
    if (bytes === 0 || isTooMuch) {
      if (isTooMuch) this.droppedWrites++;
      cache.clear();
      return known;
    }
    this.#waiting.push({ root, tokenIds, cache, isFinal, bytes });
    this.#waitingBytes += bytes;
    this.#dropSome();
    this.#writing ??= this.#writeAll();
    return tokenIds.length;
  }

  /** Everything that waits is written, or refused by the disk. */
  async flush(): Promise<void> {
    while (this.#writing !== undefined) await this.#writing;
    await this.#store.flush();
  }

  /** Tokens that are on disk, and the bytes of the rest: 0 when there is nothing to write, or it is not worth it yet. */
  #missing(root: RecordKey, tokenIds: Int32Array, isFinal: boolean): { known: number; bytes: number } {
    const { length } = tokenIds;
    const known = this.find(root, tokenIds, length)?.length ?? 0;
    if (known === length || (!isFinal && length - known < frontierTokens)) return { known, bytes: 0 };
    const blocks = Math.floor(length / blockTokens) - Math.floor(known / blockTokens);
    return { known, bytes: blocks * this.#rows.blockBytes + this.#rows.frontierBytes(length) };
  }

  /** The oldest stops on the way go first; ends of answers only when they alone are too many. */
  #dropSome(): void {
    while (this.#waitingBytes > this.#mostWaitingBytes && this.#waiting.length > 1) {
      const place = Math.max(
        0,
        this.#waiting.findIndex(({ isFinal }) => !isFinal),
      );
      const [dropped] = this.#waiting.splice(place, 1);
      this.#waitingBytes -= dropped!.bytes;
      dropped!.cache.clear();
      this.droppedWrites++;
    }
  }

  async #writeAll(): Promise<void> {
    for (let job = this.#waiting.shift(); job !== undefined; job = this.#waiting.shift()) {
      this.#waitingBytes -= job.bytes;
      const isWritten = await this.#writeOne(job).catch(() => false); // a device that died tells its next step
      if (!isWritten) this.droppedWrites++;
      job.cache.clear();
    }
    this.#writing = undefined;
  }

  async #writeOne({ root, tokenIds, cache, isFinal }: WaitingWrite): Promise<boolean> {
    if (this.#store.state === "on" && this.#missing(root, tokenIds, isFinal).bytes === 0) return true;
    return this.#store.group(async (put) => {
      const whole = Math.floor(tokenIds.length / blockTokens);
      let parent = root;
      for (let block = 0; block < whole; block++) {
        const key = blockKey(parent, tokenIds, block * blockTokens, blockTokens);
        if (!this.#store.index.blocks.has(key)) {
          const description = encodeDescription({ parent, position: (block + 1) * blockTokens });
          await put({ type: "block", key, description, payload: await this.#rows.readBlock(cache, block) });
        }
        parent = key;
      }
      const first = whole * blockTokens;
      const tail = [...tokenIds.subarray(first)];
      const key = frontierKey(parent, tokenIds, first, tail.length);
      const description = encodeDescription({ parent, position: tokenIds.length, tail });
      await put({ type: "frontier", key, description, payload: await this.#rows.readFrontier(cache) });
    });
  }
}

/** Whether a sequence goes on with these tokens at `first`. */
function continues(tokenIds: ArrayLike<number>, first: number, tail: Uint32Array): boolean {
  if (first + tail.length > tokenIds.length) return false;
  return tail.every((id, i) => tokenIds[first + i] === id);
}
