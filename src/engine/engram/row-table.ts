/**
 * A table of which a step needs a few rows. It may be far larger than memory: rows are read from the file when they are asked
 * for and kept in a cache of a given size; a table that fits the budget is read whole.
 */
import type { StoredMatrix } from "../../device/device.ts";
import { RowCache } from "./row-cache.ts";
import { type RowDecoder, rowDecoder } from "./row-decoder.ts";
import { type RowReader, readerFor } from "./row-reader.ts";

export interface RowCounters {
  /** Rows that were asked for. */
  readonly lookups: number;
  /** Those that were in memory when their turn came. */
  readonly hits: number;
  /** Rows that were read from the file, in how many batches, and with how many calls and bytes. */
  readonly rowsRead: number;
  readonly batches: number;
  readonly reads: number;
  readonly readBytes: number;
}

export interface RowTable extends Disposable {
  readonly counters: RowCounters;
  readonly memoryBytes: number;
  /** Row i of the list goes to `into`, columns values each: at once where all are in memory (undefined), or when they are read. */
  gather(rows: Int32Array, into: Float32Array): Promise<void> | undefined;
  /** Rows that will be asked for soon. */
  prefetch(rows: Int32Array): void;
}

/** Throws a ModelError for a format that cannot be read by row. */
export async function openRowTable(
  stored: StoredMatrix,
  name: string,
  { budgetBytes, threads }: { budgetBytes: number; threads: number },
): Promise<RowTable> {
  const decoder = rowDecoder(stored, name);
  const rowBytes = decoder.dataBytes + decoder.scaleBytes;
  if (stored.rows * rowBytes <= budgetBytes) return residentTable(stored, decoder);
  return new DiskTable(stored, decoder, budgetBytes, threads);
}

/** The whole table in memory, as it is stored. */
async function residentTable({ rows, parts }: StoredMatrix, decoder: RowDecoder): Promise<RowTable> {
  const { columns, dataBytes, scaleBytes } = decoder;
  const { data, scales } = parts[0]!;
  const bytesOfData = await readWhole(data);
  const bytesOfScales = scales && (await readWhole(scales));
  const row = new Uint8Array(Math.ceil((dataBytes + scaleBytes) / 4) * 4);
  let lookups = 0;
  return {
    memoryBytes: rows * (dataBytes + scaleBytes),
    get counters() {
      return { lookups, hits: lookups, rowsRead: 0, batches: 0, reads: 0, readBytes: 0 };
    },
    gather(wanted, into) {
      lookups += wanted.length;
      for (const [i, index] of wanted.entries()) {
        row.set(bytesOfData.subarray(index * dataBytes, (index + 1) * dataBytes));
        if (bytesOfScales) row.set(bytesOfScales.subarray(index * scaleBytes, (index + 1) * scaleBytes), dataBytes);
        decoder.decode(row, 0, into, i * columns);
      }
      return undefined;
    },
    prefetch() {},
    [Symbol.dispose]() {},
  };
}

/** In pieces: a table of many GiB is more than one read gives. */
async function readWhole({ source, offset, length }: StoredMatrix["parts"][number]["data"]): Promise<Uint8Array> {
  const whole = new Uint8Array(length);
  const most = 64 << 20;
  for (let done = 0; done < length; done += most) {
    const piece = await source.read(offset + done, Math.min(most, length - done));
    whole.set(piece, done);
    piece.buffer.transfer(0); // given back at once, not when garbage is collected
  }
  return whole;
}

class DiskTable implements RowTable {
  readonly #stored: StoredMatrix;
  readonly #decoder: RowDecoder;
  readonly #cache: RowCache;
  readonly #reader: RowReader;
  /** Where rows are read to: shared with the reading threads. */
  #landing = new Uint8Array(new SharedArrayBuffer(0));
  /** The batches that are being read or wait for it; settles when they are done. */
  #last: Promise<void> = Promise.resolve();
  #waiting = 0;
  #lookups = 0;
  #hits = 0;
  #rowsRead = 0;
  #batches = 0;

  constructor(stored: StoredMatrix, decoder: RowDecoder, budgetBytes: number, threads: number) {
    this.#stored = stored;
    this.#decoder = decoder;
    this.#cache = new RowCache(decoder.dataBytes + decoder.scaleBytes, budgetBytes);
    const { data, scales } = stored.parts[0]!;
    this.#reader = readerFor(scales === undefined ? [data] : [data, scales], threads);
  }

  get memoryBytes(): number {
    return this.#cache.memoryBytes + this.#landing.byteLength;
  }

  get counters(): RowCounters {
    const { dataBytes, scaleBytes } = this.#decoder;
    const readBytes = this.#rowsRead * (dataBytes + scaleBytes);
    return {
      lookups: this.#lookups,
      hits: this.#hits,
      rowsRead: this.#rowsRead,
      batches: this.#batches,
      reads: this.#reader.reads,
      readBytes,
    };
  }

  gather(rows: Int32Array, into: Float32Array): Promise<void> | undefined {
    this.#lookups += rows.length;
    if (this.#waiting === 0) {
      const missing = this.#takeKnown(rows, into);
      return missing.size === 0 ? undefined : this.#afterTheLast(() => this.#readMissing(missing, into));
    }
    return this.#afterTheLast(() => this.#readMissing(this.#takeKnown(rows, into), into));
  }

  prefetch(rows: Int32Array): void {
    // A failure is met again, and reported, when the rows are asked for.
    this.#afterTheLast(() => this.#readMissing(this.#takeKnown(rows, undefined), undefined)).catch(() => {});
  }

  [Symbol.dispose](): void {
    this.#reader[Symbol.dispose]();
  }

  /** One batch at a time: what a prefetch reads, the next batch finds. */
  #afterTheLast(work: () => Promise<void>): Promise<void> {
    this.#waiting++;
    const done = this.#last.then(work).finally(() => this.#waiting--);
    this.#last = done.catch(() => {});
    return done;
  }

  /** Decodes what the cache has; returns the rows that it has not, and where each is wanted. */
  #takeKnown(rows: Int32Array, into: Float32Array | undefined): Map<number, number[]> {
    const { columns } = this.#decoder;
    const missing = new Map<number, number[]>();
    for (const [i, row] of rows.entries()) {
      const at = this.#cache.find(row);
      if (at >= 0) {
        if (into === undefined) continue;
        this.#decoder.decode(this.#cache.bytes, at, into, i * columns);
        this.#hits++;
        continue;
      }
      const wanted = missing.get(row);
      if (wanted === undefined) missing.set(row, [i]);
      else wanted.push(i);
    }
    return missing;
  }

  async #readMissing(missing: ReadonlyMap<number, readonly number[]>, into: Float32Array | undefined): Promise<void> {
    if (missing.size === 0) return;
    // In the order of the file, which is kinder to disks.
    const sorted = Int32Array.from(missing.keys()).sort();
    await this.#read(sorted);
    const { columns } = this.#decoder;
    const stride = this.#cache.rowBytes;
    for (const [k, row] of sorted.entries()) {
      this.#cache.add(row, this.#landing, k * stride);
      if (into !== undefined)
        for (const i of missing.get(row)!) this.#decoder.decode(this.#landing, k * stride, into, i * columns);
    }
  }

  async #read(rows: Int32Array): Promise<void> {
    const stride = this.#cache.rowBytes;
    if (this.#landing.length < rows.length * stride)
      this.#landing = new Uint8Array(new SharedArrayBuffer(2 * rows.length * stride));
    const { dataBytes, scaleBytes } = this.#decoder;
    const { data, scales } = this.#stored.parts[0]!;
    const stretches = [{ bytes: data, rowBytes: dataBytes, at: 0 }];
    if (scales !== undefined) stretches.push({ bytes: scales, rowBytes: scaleBytes, at: dataBytes });
    this.#rowsRead += rows.length;
    this.#batches++;
    await this.#reader.read({ rows, stride, stretches }, this.#landing);
  }
}
