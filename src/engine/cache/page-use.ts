/**
 * Who among the remembered sequences holds which page: bytes in all, and for each sequence the bytes that only it holds. A page keeps
 * the number of its holders and the exclusive or of their ids; with one holder that is the holder.
 */
import type { LayoutPages, SequenceCache } from "./kv-cache.ts";

export class PageUse {
  /** Bytes of the pages that somebody holds. */
  bytes = 0;
  readonly #layouts: readonly {
    readonly pages: LayoutPages;
    readonly pageBytes: number;
    holders: number[];
    ids: number[];
  }[];
  readonly #exclusive = new Map<number, number>();

  constructor(layouts: readonly LayoutPages[], valueBytes: number) {
    this.#layouts = layouts.map((pages) => ({ pages, pageBytes: pages.pageValues * valueBytes, holders: [], ids: [] }));
  }

  exclusiveBytes(id: number): number {
    return this.#exclusive.get(id) ?? 0;
  }

  add(id: number, cache: SequenceCache): void {
    this.#exclusive.set(id, 0);
    this.#change(id, cache, 1);
  }

  remove(id: number, cache: SequenceCache): void {
    this.#change(id, cache, -1);
    this.#exclusive.delete(id);
  }

  #change(id: number, cache: SequenceCache, by: 1 | -1): void {
    for (const { pages, pageBytes, holders, ids } of this.#layouts) {
      for (const page of cache.pagesOf(pages.name).values()) {
        const before = holders[page] ?? 0;
        const after = before + by;
        if (before === 1) this.#addExclusive(ids[page]!, -pageBytes);
        holders[page] = after;
        ids[page] = (ids[page] ?? 0) ^ id;
        if (after === 1) this.#addExclusive(ids[page]!, pageBytes);
        if (before === 0) this.bytes += pageBytes;
        if (after === 0) this.bytes -= pageBytes;
      }
    }
  }

  #addExclusive(id: number, bytes: number): void {
    this.#exclusive.set(id, (this.#exclusive.get(id) ?? 0) + bytes);
  }
}
