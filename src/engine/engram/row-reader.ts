/**
 * Reads many short stretches of a file at once: on threads with the file open, each waiting for the disk by itself, or where the
 * bytes are no file one after another.
 */
import { closeSync, openSync } from "node:fs";
import { Worker } from "node:worker_threads";
import type { StoredBytes } from "../../device/device.ts";
import { DeviceError, FormatError, ModelError } from "../../errors.ts";
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
    /** The operating system's number of the open file, which all threads of a process share. */
    readonly file: number;
    readonly begin: number;
    readonly rowBytes: number;
    readonly at: number;
  }[];
  readonly memory: SharedArrayBuffer;
}

/** `where`: the file that does not hold what is wanted. */
export type ReadDone = { readonly id: number; readonly error?: string; readonly where?: string };

/** Rows that one thread reads before another may take over. */
const leastRowsOfJob = 4;

export class ThreadReader implements RowReader {
  readonly #threads: readonly Worker[];
  /** Open as long as the reader lives: what another file is put in the place of, or deletes, stays readable as it is. */
  readonly #files = new Map<string, number>();
  readonly #waiting = new Map<number, PromiseWithResolvers<void>>();
  #next = 0;
  #turn = 0;
  #reads = 0;
  #gone: Error | undefined;

  constructor(paths: readonly string[], threads: number) {
    for (const path of new Set(paths)) this.#files.set(path, openFile(path));
    const name = import.meta.url.endsWith(".ts") ? "./row-reader-worker.ts" : "./row-reader-worker.js";
    this.#threads = Array.from({ length: threads }, () => {
      const worker = new Worker(new URL(name, import.meta.url), { execArgv: [] });
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
    this.#gone ??= new DeviceError("The model was disposed of", { code: "disposed" });
    const ended = Promise.all(this.#threads.map((worker) => worker.terminate()));
    // Not before: a number of a closed file soon names another one.
    void ended.then(() => {
      for (const file of this.#files.values()) closeSync(file);
      this.#files.clear();
    });
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
        stretches: stretches.map(({ bytes: { source, offset }, rowBytes, at }) => {
          const { path } = source as FileSource; // readerFor chose this reader for files
          return { path, file: this.#files.get(path)!, begin: offset, rowBytes, at: at + i * each * stride };
        }),
      };
      const done = Promise.withResolvers<void>();
      this.#waiting.set(id, done);
      this.#threads[this.#turn++ % this.#threads.length]!.postMessage(job);
      return done.promise;
    });
  }

  #settle({ id, error, where }: ReadDone): void {
    const waiting = this.#waiting.get(id);
    this.#waiting.delete(id);
    const hint = "The file changed or was cut off; copy it again and load the model anew";
    if (error === undefined) waiting?.resolve();
    else
      waiting?.reject(new FormatError(error, { code: "truncated", hint, ...(where === undefined ? {} : { where }) }));
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
  const files = bytes.map(({ source }) => source).filter((source) => source instanceof FileSource);
  const paths = files.map(({ path }) => path);
  return paths.length === bytes.length ? new ThreadReader(paths, threads) : new SourceReader();
}

function openFile(path: string): number {
  try {
    return openSync(path, "r");
  } catch (error) {
    throw new ModelError(`Cannot open the file of an n-gram table: ${(error as Error).message}`, {
      code: "file",
      where: path,
      hint: "Copy the model again",
      cause: error,
    });
  }
}
