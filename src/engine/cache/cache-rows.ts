/**
 * Which rows of the caches make up what a store keeps of a sequence, and how they become bytes. Derived from the graph: another model,
 * or another version of its code, has other rows and another `format`.
 *   a block: the rows of 128 tokens in every growing cache, a page each; it never changes once its last token is there
 *   a frontier at position p: the rows of the bounded caches that the token at p may read, and the rows of the growing ones
 *     behind the last whole block
 * Rows are written as the device stores them, so that what is read back is what was computed, bit for bit.
 */
import { FormatError } from "../../errors.ts";
import type { Graph } from "../../tensor/graph.ts";
import { type CompressAttributes, compressEntries } from "../../tensor/ops/compress-entries.ts";
import { blockTokens, layoutName } from "../../tensor/paging.ts";
import type { ModelRunner } from "../model-runner.ts";
import type { LayoutPages, SequenceCache } from "./kv-cache.ts";

interface CacheDescription {
  readonly name: string;
  readonly width: number;
  readonly pages: LayoutPages;
  readonly isGrowing: boolean;
  /** The first row that the token at `position` may read. */
  readonly firstRead: (position: number) => number;
}

/** Rows of one cache. */
interface Rows {
  readonly cache: CacheDescription;
  readonly first: number;
  readonly end: number;
}

type Values = Float32Array | Float64Array;

export class CacheRows {
  /** Bytes of a value as the device stores it. */
  readonly valueBytes: number;
  /** Names everything that the bytes depend on. */
  readonly format: string;
  readonly blockBytes: number;
  readonly #runner: ModelRunner;
  readonly #caches: readonly CacheDescription[];

  private constructor(runner: ModelRunner, valueBytes: number) {
    this.#runner = runner;
    this.valueBytes = valueBytes;
    this.#caches = describeCaches(runner.program.graph, runner.cache.layouts);
    this.blockBytes = this.#bytes(this.#blockRows(0));
    const caches = this.#caches.map(({ name, width, pages, firstRead }) =>
      [name, width, pages.name, [0, 1, 127, 128, 130, 255, 257].map(firstRead)].join(" "),
    );
    this.format = [`rows 1, ${valueBytes} bytes a value`, ...caches].join("\n");
  }

  static async of(runner: ModelRunner): Promise<CacheRows> {
    const name = runner.program.graph.caches.keys().next().value;
    const values = name === undefined ? new Float32Array(0) : await runner.program.readCache(name, 0, 0);
    return new CacheRows(runner, values.BYTES_PER_ELEMENT);
  }

  frontierBytes(position: number): number {
    return this.#bytes(this.#frontierRows(position));
  }

  /** A block as bytes. The sequence must not be written to meanwhile: a fork of it. */
  readBlock(sequence: SequenceCache, block: number): Promise<Uint8Array> {
    return this.#read(sequence, this.#blockRows(block));
  }

  readFrontier(sequence: SequenceCache): Promise<Uint8Array> {
    return this.#read(sequence, this.#frontierRows(sequence.length));
  }

  /** Puts a block into new pages of the sequence. Between two steps only. */
  writeBlock(sequence: SequenceCache, block: number, bytes: Uint8Array): void {
    this.#write(sequence, this.#blockRows(block), bytes);
  }

  /** Uses the pages of another sequence with the same tokens. */
  shareBlock(sequence: SequenceCache, from: SequenceCache, block: number): void {
    for (const pages of this.#runner.cache.layouts) if (isGrowing(pages)) sequence.share(from, pages, block);
  }

  /** Completes a sequence whose blocks are there. Between two steps only. */
  writeFrontier(sequence: SequenceCache, position: number, bytes: Uint8Array): void {
    this.#write(sequence, this.#frontierRows(position), bytes);
    sequence.restored(position);
  }

  #blockRows(block: number): Rows[] {
    return this.#caches
      .filter((cache) => cache.isGrowing)
      .map((cache) => ({ cache, first: block * cache.pages.pageRows, end: (block + 1) * cache.pages.pageRows }));
  }

  #frontierRows(position: number): Rows[] {
    const block = Math.floor(position / blockTokens);
    return this.#caches.map((cache) => {
      const { pageRows, layout } = cache.pages;
      const first = cache.isGrowing ? block * pageRows : cache.firstRead(position);
      return { cache, first, end: Math.max(first, Math.floor(position / layout.tokensPerRow)) };
    });
  }

  #bytes(rows: readonly Rows[]): number {
    return rows.reduce((sum, { cache, first, end }) => sum + (end - first) * cache.width, 0) * this.valueBytes;
  }

  async #read(sequence: SequenceCache, rows: readonly Rows[]): Promise<Uint8Array> {
    const bytes = new Uint8Array(this.#bytes(rows));
    let offset = 0;
    for (const { cache, poolRow, count } of pieces(sequence, rows)) {
      const values = await this.#runner.program.readCache(cache.name, poolRow, count);
      bytes.set(new Uint8Array(values.buffer, values.byteOffset, values.byteLength), offset);
      offset += values.byteLength;
    }
    return bytes;
  }

  #write(sequence: SequenceCache, rows: readonly Rows[], bytes: Uint8Array): void {
    if (bytes.length !== this.#bytes(rows)) {
      throw new FormatError(`A stored record has ${bytes.length} bytes, ${this.#bytes(rows)} were expected`, {
        code: "store-record",
      });
    }
    // Pages of a layout are made in their order, though one of its caches may begin later than another.
    for (const { cache, first, end } of rows.toSorted((a, b) => a.first - b.first))
      this.#runner.cache.makePages(sequence, cache.pages, first, end);
    const values = aligned(bytes, this.valueBytes);
    let offset = 0;
    for (const { cache, poolRow, count } of pieces(sequence, rows)) {
      this.#runner.program.writeCache(cache.name, poolRow, values.subarray(offset, offset + count * cache.width));
      offset += count * cache.width;
    }
  }
}

function describeCaches(graph: Graph, layouts: readonly LayoutPages[]): CacheDescription[] {
  return [...graph.caches.values()].map(({ storage: { name, width, layout } }) => {
    const pages = layouts.find((candidate) => candidate.name === layoutName(layout))!;
    const group = groupReader(graph, name);
    const firstRead =
      group === undefined
        ? (position: number) => Math.max(0, Math.floor(position / layout.tokensPerRow) - layout.reach)
        : (position: number) => Math.max(0, firstOfGroup(position, group));
    return { name, width, pages, isGrowing: isGrowing(pages), firstRead };
  });
}

function isGrowing({ layout }: LayoutPages): boolean {
  return layout.reach === Number.POSITIVE_INFINITY;
}

/**
 * A cache that only the compressor reads is read from the beginning of the open group on (or of the one before): at a border of 128
 * tokens that is nothing for ratio 128, where the reach of the layout would keep 127 rows of two caches a layer.
 */
function groupReader(graph: Graph, cache: string): CompressAttributes | undefined {
  const readers = graph.nodes.filter(
    ({ op, inputs }) =>
      !op.writesInput && inputs.some(({ storage }) => storage.kind === "cache" && storage.name === cache),
  );
  const [reader] = readers;
  const isOnly = readers.length === 1 && reader!.op.name === compressEntries.name;
  return isOnly ? (reader!.attributes as CompressAttributes) : undefined; // the graph keeps an op and its own attributes together
}

function firstOfGroup(position: number, { ratio, overlap }: CompressAttributes): number {
  return (Math.floor(position / ratio) - (overlap ? 1 : 0)) * ratio;
}

/** The stretches of the pool that hold some rows of a sequence, in order. */
function* pieces(sequence: SequenceCache, rows: readonly Rows[]) {
  for (const { cache, first, end } of rows) {
    const { name, pageRows } = cache.pages;
    const pages = sequence.pagesOf(name);
    for (let row = first; row < end; ) {
      const index = Math.floor(row / pageRows);
      const next = Math.min(end, (index + 1) * pageRows);
      yield { cache, poolRow: pages.get(index)! * pageRows + (row - index * pageRows), count: next - row };
      row = next;
    }
  }
}

/** Bytes as numbers; copied when they do not begin where numbers may. */
function aligned(bytes: Uint8Array, valueBytes: number): Values {
  const { buffer, byteOffset, length } = bytes.byteOffset % valueBytes === 0 ? bytes : bytes.slice();
  return valueBytes === 8
    ? new Float64Array(buffer, byteOffset, length / valueBytes)
    : new Float32Array(buffer, byteOffset, length / valueBytes);
}
