/**
 * The store on disk: records are appended in groups, a group counts when its COMMIT is safe on disk, and only then the index names its
 * records. Every payload is checked when it is read; what does not fit is a miss. What the disk refuses (full, read-only, broken,
 * locked) never stops the caller: the store says so in `state`, and tries again later.
 */
import { FreeholdError } from "../../errors.ts";
import { diskFileSystem, type FileSystem } from "./file-system.ts";
import { type OpenedDirectory, openDirectory } from "./open-directory.ts";
import { headerBytes, isIntact, type NewRecord, type RecordKey } from "./record.ts";
import { RecordIndex, type StoredRecord } from "./record-index.ts";
import type { Segment } from "./segment.ts";
import { DiskError, onDisk, SegmentLog } from "./segment-log.ts";
import { nextVictim, trimIndex } from "./space.ts";

export interface StoreOptions {
  readonly directory: string;
  /** Bytes of all segments together. */
  readonly budgetBytes: number;
  /** Milliseconds; only differences matter. */
  readonly now: () => number;
  readonly files?: FileSystem;
  /** A segment is sealed when it would grow beyond this. Default: a 16th of the budget, 256 MiB at most. */
  readonly segmentBytes?: number;
  /** Bytes of the file system that stay free. Default 256 MiB. */
  readonly reserveBytes?: number;
}

export type StoreState = "on" | "off" | "read-only";

/** Writes a record of the group that is under way. */
export type Put = (record: NewRecord) => Promise<void>;

const firstRetryMs = 30_000;
const lastRetryMs = 600_000;

export class KvStore {
  readonly directory: string;
  readonly budgetBytes: number;
  readonly counters = { readBytes: 0, corruptRecords: 0, readErrors: 0, writeErrors: 0, collected: 0 };
  readonly #files: FileSystem;
  readonly #now: () => number;
  readonly #segmentBytes: number;
  readonly #reserveBytes: number;
  #index = new RecordIndex();
  #log: SegmentLog | undefined;
  #writtenBefore = 0;
  #toCollect = new Set<Segment>();
  #state: StoreState = "off";
  #reason = "";
  #retryMs = firstRetryMs;
  #nextTryMs = 0;
  #last: Promise<unknown> = Promise.resolve();
  #isClosed = false;

  private constructor({ directory, budgetBytes, now, files, segmentBytes, reserveBytes }: StoreOptions) {
    this.directory = directory;
    this.budgetBytes = budgetBytes;
    this.#now = now;
    this.#files = files ?? diskFileSystem;
    this.#segmentBytes = segmentBytes ?? Math.max(64 << 10, Math.min(256 << 20, Math.floor(budgetBytes / 16)));
    this.#reserveBytes = reserveBytes ?? 256 << 20;
  }

  /** Never throws for what it finds or does not find there. */
  static async open(options: StoreOptions): Promise<KvStore> {
    const store = new KvStore(options);
    await store.#open();
    return store;
  }

  get index(): RecordIndex {
    return this.#index;
  }

  get state(): StoreState {
    return this.#state;
  }

  /** Why the state is not "on", for people. */
  get reason(): string {
    return this.#reason;
  }

  /** Bytes of all segments. */
  get totalBytes(): number {
    return this.#log?.totalBytes ?? 0;
  }

  get writtenBytes(): number {
    return this.#writtenBefore + (this.#log?.writtenBytes ?? 0);
  }

  /** The payload of a record, checked. Undefined, and the record forgotten, when it is not what was written. */
  async read(record: StoredRecord): Promise<Uint8Array | undefined> {
    const { segment, offset, header } = record;
    let bytes: Uint8Array;
    try {
      bytes = await segment.read(offset + headerBytes + header.descriptionBytes, header.payloadBytes);
    } catch {
      // Collected in this moment: the copy is elsewhere. Otherwise the disk failed.
      const moved = this.#index.get(record);
      if (moved !== undefined && moved !== record) return this.read(moved);
      this.counters.readErrors++;
      this.#index.remove(record);
      return undefined;
    }
    this.counters.readBytes += bytes.length;
    if (isIntact(bytes, header.payloadBytes, header.payloadChecksum)) return bytes;
    this.counters.corruptRecords++;
    this.#index.remove(record);
    return undefined;
  }

  /**
   * Writes the records that `work` puts; true when they are safe on disk. Groups run one after another. An error of `work` itself is
   * thrown on, with nothing written; one of the disk is not thrown.
   */
  group(work: (put: Put) => Promise<void>): Promise<boolean> {
    return this.#inOrder(async () => {
      if (!(await this.#isWritable())) return false;
      try {
        await this.#requireSpace();
        await work((record) => this.#log!.put(record));
        await this.#log!.commit();
        await this.#makeSpace();
        this.#retryMs = firstRetryMs;
        return true;
      } catch (error) {
        await this.#log?.rollBack();
        if (!(error instanceof DiskError)) throw error;
        this.#fail(error);
        return false;
      }
    });
  }

  /** Forgets everything under the root of a namespace, and overwrites nothing but removes the files that held it. */
  async forget(root: RecordKey): Promise<boolean> {
    return this.group(async (put) => {
      for (const segment of this.#index.removeRoot(root)) this.#toCollect.add(segment);
      if (this.#toCollect.size === 0) return;
      await put({ type: "tombstone", key: root });
      await this.#log!.commit();
      if ([...this.#toCollect].some(({ isSealed }) => !isSealed)) await this.#log!.seal();
    });
  }

  /** Settles when the groups that were asked for so far are done. */
  async flush(): Promise<void> {
    await this.#last;
  }

  async close(): Promise<void> {
    this.#isClosed = true;
    await this.#inOrder(() => this.#closeFiles());
    this.#setState("off", "closed");
  }

  #inOrder<T>(work: () => Promise<T>): Promise<T> {
    const result = this.#last.then(work);
    this.#last = result.catch(() => {});
    return result;
  }

  async #open(): Promise<void> {
    const index = new RecordIndex();
    try {
      this.#take(await openDirectory(this.#files, this.directory, index, { canWrite: true }), index);
      this.#setState("on", "");
    } catch (error) {
      this.#fail(error);
      const { code } = error as { code?: unknown };
      const isForeign = error instanceof FreeholdError; // locked, newer, or a directory of something else
      if (isForeign) return this.#setState("off", this.#reason);
      // What cannot be written can perhaps be read.
      const canRead = ["EROFS", "EACCES", "EPERM", "ENOSPC", "EDQUOT"].includes(String(code));
      if (canRead) await this.#openReadOnly();
    }
  }

  async #openReadOnly(): Promise<void> {
    const index = new RecordIndex();
    const opened = await openDirectory(this.#files, this.directory, index, { canWrite: false }).catch(() => undefined);
    if (opened !== undefined) this.#take(opened, index);
  }

  #take(opened: OpenedDirectory, index: RecordIndex): void {
    this.#index = index;
    this.#log = new SegmentLog(this.#files, this.directory, opened, index, this.#segmentBytes);
    this.#toCollect = new Set(opened.forgotten);
    this.counters.corruptRecords += opened.damaged;
  }

  #setState(state: StoreState, reason: string): void {
    this.#state = state;
    this.#reason = reason;
  }

  #fail(error: unknown): void {
    this.counters.writeErrors++;
    const cause = error instanceof DiskError ? error.cause : error;
    const { message, hint } = cause as { message: string; hint?: string };
    this.#setState("read-only", hint === undefined ? message : `${message}. ${hint}`);
    this.#nextTryMs = this.#now() + this.#retryMs;
    this.#retryMs = Math.min(2 * this.#retryMs, lastRetryMs);
  }

  async #isWritable(): Promise<boolean> {
    if (this.#isClosed) return false;
    if (this.#state === "on") return true;
    if (this.#now() < this.#nextTryMs) return false;
    if (!this.#log?.canWrite) {
      await this.#closeFiles();
      await this.#open();
    } else this.#setState("on", "");
    return this.state === "on";
  }

  async #requireSpace(): Promise<void> {
    if (this.#reserveBytes === 0) return;
    const free = await onDisk(this.#files.freeBytes(this.directory));
    if (free >= this.#reserveBytes) return;
    throw new DiskError(
      new Error(`Only ${free >> 20} MiB are free where the store lies, ${this.#reserveBytes >> 20} MiB are kept free`),
    );
  }

  /** Keeps to the budget: forgets what was used longest ago, and gives segments back whose records are mostly dead. */
  async #makeSpace(): Promise<void> {
    const log = this.#log!;
    trimIndex(this.#index, 0.85 * this.budgetBytes);
    for (let round = 0; round < 64; round++) {
      const isOver = log.totalBytes > this.budgetBytes;
      const victim = nextVictim(log.segments, this.#toCollect, isOver);
      if (victim === undefined && !isOver) return;
      if (victim === undefined && (await log.seal())) continue;
      const before = log.totalBytes;
      if (victim !== undefined) await this.#collect(victim);
      // Little was gained: nearly all is alive.
      const isStuck = isOver && log.totalBytes > before - 0.1 * (victim?.size ?? 0);
      if (isStuck) trimIndex(this.#index, 0.95 * this.#index.liveBytes);
    }
  }

  /** Copies what is alive in a segment to the end of the log, and removes the file. */
  async #collect(victim: Segment): Promise<void> {
    for (const record of this.#index.recordsOf(victim)) {
      const payload = await this.read(record);
      if (payload === undefined) continue;
      const { type, key, description, lastUse } = record;
      await this.#log!.put({ type, key, description, payload }, lastUse);
    }
    await this.#log!.commit();
    this.#toCollect.delete(victim);
    await this.#log!.remove(victim);
    this.counters.collected++;
  }

  async #closeFiles(): Promise<void> {
    await this.#log?.close();
    this.#writtenBefore += this.#log?.writtenBytes ?? 0;
    this.#log = undefined;
    this.#index = new RecordIndex();
  }
}
