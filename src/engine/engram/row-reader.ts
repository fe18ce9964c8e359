/**
 * Reads many short stretches of a file at once: on threads with the file open, each waiting for the disk by itself, or where the
 * bytes are no file one after another.
 */
import { Worker } from "node:worker_threads";
import type { StoredBytes } from "../../device/device.ts";
import { FormatError } from "../../errors.ts";
import { FileSource } from "../file-source.ts";

/** Rows, and what is read of each: every stretch goes to `i * stride + at` for row i of the list. */
export interface RowRead {
  readonly rows: Int32Array;
  readonly stride: number;
  readonly stretches: readonly {
    readonly bytes: StoredBytes;
    readonly rowBytes: number;
    readonly at: number;
  }[];
}

export interface RowReader extends Disposable {
  /** Calls of the operating system so far. */
  readonly reads: number;
  read(batch: RowRead, into: Uint8Array): Promise<void>;
}

/** A part of a batch for a reading thread. */
export interface ReadJob {
  readonly id: number;
  readonly rows: Int32Array;
  readonly stride: number;
  readonly stretches: readonly {
    readonly path: string;
    readonly begin: number;
    readonly rowBytes: number;
    readonly at: number;
  }[];
  readonly memory: SharedArrayBuffer;
}

export type ReadDone = { readonly id: number; readonly error?: string };

/** Rows that one thread reads before another may take over. */
const leastRowsOfJob = 4;

export class ThreadReader implements RowReader {
  readonly #threads: readonly Worker[];
  readonly #waiting = new Map<number, PromiseWithResolvers<void>>();
  #next = 0;
  #turn = 0;
  #reads = 0;
  #gone: Error | undefined;

  constructor(threads: number) {
    const name = import.meta.url.endsWith(".ts") ? "./row-reader-worker.ts" : "./row-reader-worker.js";
    this.#threads = Array.from({ length: threads }, () => {
      const worker = new Worker(new URL(name, import.meta.url));
      worker.on("message", (done: ReadDone) => this.#settle(done));
      worker.on("error", (error) => this.#fail(error));
      worker.on("exit", () => this.#fail(new Error("a reading thread ended")));
      worker.unref();
      return worker;
    });
  }

  get reads(): number {
    return this.#reads;
  }

  async read(batch: RowRead, into: Uint8Array): Promise<void> {
    if (this.#gone !== undefined) throw this.#gone;
    const jobs = this.#jobsOf(batch, into.buffer as SharedArrayBuffer);
    for (const worker of this.#threads) worker.ref();
    try {
      await Promise.all(jobs);
    } finally {
      if (this.#waiting.size === 0) for (const worker of this.#threads) worker.unref();
    }
  }

  [Symbol.dispose](): void {
    this.#gone ??= new Error("the reader was disposed of");
    for (const worker of this.#threads) void worker.terminate();
  }

  #jobsOf({ rows, stride, stretches }: RowRead, memory: SharedArrayBuffer): Promise<void>[] {
    const each = Math.max(leastRowsOfJob, Math.ceil(rows.length / this.#threads.length));
    this.#reads += rows.length * stretches.length;
    return Array.from({ length: Math.ceil(rows.length / each) }, (_, i) => {
      const id = this.#next++;
      const job: ReadJob = {
        id,
        memory,
        stride,
        rows: rows.slice(i * each, (i + 1) * each),
        stretches: stretches.map(({ bytes: { source, offset }, rowBytes, at }) => ({
          path: (source as FileSource).path, // readerFor chose this reader for files
          begin: offset,
          rowBytes,
          at: at + i * each * stride,
        })),
      };
      const done = Promise.withResolvers<void>();
      this.#waiting.set(id, done);
      this.#threads[this.#turn++ % this.#threads.length]!.postMessage(job);
      return done.promise;
    });
  }

  #settle({ id, error }: ReadDone): void {
    const waiting = this.#waiting.get(id);
    this.#waiting.delete(id);
    if (error === undefined) waiting?.resolve();
    else
      waiting?.reject(
        new FormatError(error, { code: "truncated", hint: "The file changed or was cut off; copy it again" }),
      );
  }

  #fail(error: Error): void {
    this.#gone ??= error;
    for (const waiting of this.#waiting.values()) waiting.reject(this.#gone);
    this.#waiting.clear();
  }
}

export class SourceReader implements RowReader {
  #reads = 0;

  get reads(): number {
    return this.#reads;
  }

  async read({ rows, stride, stretches }: RowRead, into: Uint8Array): Promise<void> {
    for (const { bytes, rowBytes, at } of stretches) {
      for (const [i, row] of rows.entries()) {
        this.#reads++;
        into.set(await bytes.source.read(bytes.offset + row * rowBytes, rowBytes), i * stride + at);
      }
    }
  }

  [Symbol.dispose](): void {}
}

export function readerFor(bytes: readonly StoredBytes[], threads: number): RowReader {
  return bytes.every(({ source }) => source instanceof FileSource) ? new ThreadReader(threads) : new SourceReader();
}
