/**
 * What a model remembers between steps, for all sequences of a program: window keys, compressor rows, compressed entries.
 * Each layout (one row a token or one a group; how far back it is read) has a pool of pages, and each sequence a list of
 * pages for every layout. A sequence can be forked (pages are shared until one side writes) and wound back (its last pages
 * are dropped); pages out of reach of any later read are given back.
 */

import type { Program } from "../../device/device.ts";
import { DeviceError } from "../../errors.ts";
import { cacheLayouts, type Graph } from "../../tensor/graph.ts";
import { type CacheLayout, layoutName, rowsPerPage } from "../../tensor/paging.ts";
import { PagePool } from "./page-pool.ts";

export interface LayoutPages {
  readonly name: string;
  readonly layout: CacheLayout;
  readonly pageRows: number;
  /** Values that a page holds, in all caches of the layout together. */
  readonly pageValues: number;
  readonly pool: PagePool;
}

export class KvCache {
  readonly layouts: readonly LayoutPages[];
  /** Tokens by which any sequence can be wound back without computing anything again. */
  readonly maxRewind: number;
  readonly program: Program;
  readonly #capacity = new Map<string, number>();

  constructor(program: Program, maxRewind = 64) {
    this.program = program;
    this.maxRewind = maxRewind;
    this.layouts = cacheLayouts(program.graph).map((layout) => {
      const name = layoutName(layout);
      const pageRows = rowsPerPage(layout);
      const pageValues = pageRows * rowWidth(program.graph, name);
      return { name, layout, pageRows, pageValues, pool: new PagePool() };
    });
  }

  createSequence(): SequenceCache {
    return new SequenceCache(this, 0, new Map(this.layouts.map(({ name }) => [name, new Map<number, number>()])));
  }

  /** Makes every page writable that `tokens` further tokens of the sequence write: new ones, and copies of shared ones. */
  prepare(sequence: SequenceCache, tokens: number): void {
    for (const layoutPages of this.layouts) {
      const { name, layout, pageRows, pool } = layoutPages;
      const pages = sequence.pagesOf(name);
      const first = Math.floor(Math.max(0, sequence.length - (layout.isLate ? 1 : 0)) / layout.tokensPerRow);
      const end = Math.floor((sequence.length + tokens) / layout.tokensPerRow);
      const wanted: number[] = [];
      for (let index = Math.floor(first / pageRows); index * pageRows < end; index++) {
        const page = pages.get(index);
        if (page === undefined || pool.isShared(page)) wanted.push(index);
      }
      this.#makeRoom(layoutPages, wanted.length);
      for (const index of wanted) {
        const shared = pages.get(index);
        const page = pool.allocate();
        if (shared !== undefined) {
          this.program.copyCacheRows(name, shared * pageRows, page * pageRows, pageRows);
          pool.release(shared);
        }
        pages.set(index, page);
      }
    }
  }

  /**
   * Gives the sequence pages for rows that are about to be restored; rows `first` to `end` of one layout. To be called between two
   * steps only: it may move the caches.
   */
  makePages(sequence: SequenceCache, layout: LayoutPages, first: number, end: number): void {
    const { name, pageRows, pool } = layout;
    const pages = sequence.pagesOf(name);
    const wanted: number[] = [];
    for (let index = Math.floor(first / pageRows); index * pageRows < end; index++)
      if (!pages.has(index)) wanted.push(index);
    this.#makeRoom(layout, wanted.length);
    for (const index of wanted) pages.set(index, pool.allocate());
  }

  /** Room for so many pages more than are used. Growing copies what is there: half as much again keeps that rare. */
  #makeRoom({ name, pageRows, pool }: LayoutPages, more: number): void {
    const capacity = this.#capacity.get(name) ?? 0;
    if (pool.used + more <= capacity) return;
    const pages = Math.max(pool.used + more, Math.ceil(capacity * 1.5));
    this.program.resizeCaches(name, pages * pageRows);
    this.#capacity.set(name, pages);
  }
}

/** The cache of one sequence: its length in tokens and its pages, by layout and page index. */
export class SequenceCache {
  readonly #cache: KvCache;
  readonly #pages: Map<string, Map<number, number>>;
  #length: number;
  /** Before this length rows are missing although their page is there: a restored sequence has only what its next token reads. */
  #restoredLength: number;

  constructor(cache: KvCache, length: number, pages: Map<string, Map<number, number>>, restoredLength = 0) {
    this.#cache = cache;
    this.#length = length;
    this.#pages = pages;
    this.#restoredLength = restoredLength;
  }

  /** Tokens that were computed into the cache. */
  get length(): number {
    return this.#length;
  }

  /** Page numbers by page index (row / rows a page). */
  pagesOf(layout: string): Map<number, number> {
    return this.#pages.get(layout)!;
  }

  /** After a step that computed `tokens` of this sequence: they are remembered, and what is out of reach is given back. */
  advance(tokens: number): void {
    this.#length += tokens;
    for (const { name, layout, pageRows, pool } of this.#cache.layouts) {
      const oldest = this.#length - layout.reach - this.#cache.maxRewind;
      const pages = this.pagesOf(name);
      for (const [index, page] of pages) {
        if ((index + 1) * pageRows > oldest) break; // indices rise: pages are added in order
        pool.release(page);
        pages.delete(index);
      }
    }
  }

  /** A sequence with the same content that goes its own way from here. */
  fork(): SequenceCache {
    const pages = new Map<string, Map<number, number>>();
    for (const { name, pool } of this.#cache.layouts) {
      for (const page of this.pagesOf(name).values()) pool.retain(page);
      pages.set(name, new Map(this.pagesOf(name)));
    }
    return new SequenceCache(this.#cache, this.#length, pages, this.#restoredLength);
  }

  /** Whether the rows that the token after `length` would read are still there. */
  canRewindTo(length: number): boolean {
    if (length < this.#restoredLength) return length === 0;
    return this.#cache.layouts.every(({ name, layout, pageRows }) => {
      const first = Math.max(0, length - layout.reach);
      const last = Math.floor(length / layout.tokensPerRow) - 1;
      return last < first || this.pagesOf(name).has(Math.floor(first / pageRows));
    });
  }

  /** Forgets all tokens from `length` on. Throws when what is needed to go on from there was given back. */
  rewindTo(length: number): void {
    if (!(length >= 0 && length <= this.#length) || !this.canRewindTo(length)) {
      throw new DeviceError(`Cannot wind a cache of ${this.#length} tokens back to ${length}`, {
        code: "rewind",
        hint: `Wind back by at most ${this.#cache.maxRewind} tokens, or compute the sequence again`,
      });
    }
    this.#length = length;
    this.dropUnusedPages();
    if (length === 0) this.#restoredLength = 0;
  }

  /** Gives back the pages behind the last token: what `prepare` made for a step that did not come to its end. */
  dropUnusedPages(): void {
    for (const { name, layout, pageRows, pool } of this.#cache.layouts) {
      const rows = Math.floor(this.#length / layout.tokensPerRow);
      const pages = this.pagesOf(name);
      for (const [index, page] of pages) {
        if (index * pageRows < rows) continue;
        pool.release(page);
        pages.delete(index);
      }
    }
  }

  /** An empty sequence whose rows were put back from a store: it holds `length` tokens and cannot be wound back before them. */
  restored(length: number): void {
    this.#length = length;
    this.#restoredLength = length;
  }

  /** Uses a page of another sequence that begins with the same tokens, as far as the page reaches. */
  share(from: SequenceCache, { name, pool }: LayoutPages, index: number): void {
    const page = from.pagesOf(name).get(index)!;
    pool.retain(page);
    this.pagesOf(name).set(index, page);
  }

  /** Gives everything back; the sequence is empty afterwards and can be used again. */
  clear(): void {
    for (const { name, pool } of this.#cache.layouts) {
      for (const page of this.pagesOf(name).values()) pool.release(page);
      this.pagesOf(name).clear();
    }
    this.#length = 0;
    this.#restoredLength = 0;
  }
}

/** Values of one row in all caches of a layout. */
function rowWidth(graph: Graph, layout: string): number {
  const caches = graph.caches.values().filter(({ storage }) => layoutName(storage.layout) === layout);
  return caches.reduce((sum, { storage }) => sum + storage.width, 0);
}
