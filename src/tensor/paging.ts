/**
 * Where the rows of a cache lie. A cache is a pool of pages of `rowsPerPage` rows; each sequence has a table of page
 * numbers. The pages of row r stand in the table at (r / rowsPerPage) modulo the table's width: a cache of which only the
 * last rows are ever read (a sliding window) has a short table that goes round, a growing one a table that never wraps.
 */

/** How the rows of a cache relate to the tokens of a sequence. */
export interface CacheLayout {
  /** One row for this many tokens: 1, or the compress ratio. */
  readonly tokensPerRow: number;
  /** Rows before the newest one that a step may read; Infinity if all. */
  readonly reach: number;
  /** A row is written in the step of the token after its own: it needs both (multi-token prediction). */
  readonly isLate?: boolean;
}

/** Caches of one layout share their page tables. The name of the layout, for inputs and sizes of the graph. */
export function layoutName({ tokensPerRow, reach, isLate }: CacheLayout): string {
  return `${tokensPerRow}x${reach === Number.POSITIVE_INFINITY ? "all" : reach}${isLate ? "-late" : ""}`;
}

/** Tokens after which every compress ratio of the family is at a group border; pages of growing caches hold this many. */
export const blockTokens = 128;

/** Bounded caches use small pages, so that little beyond their reach is kept. */
const rowsOfBoundedPage = 32;

export function rowsPerPage({ tokensPerRow, reach }: CacheLayout): number {
  return reach === Number.POSITIVE_INFINITY ? Math.max(1, blockTokens / tokensPerRow) : rowsOfBoundedPage;
}

/** The row of the pool that holds row `row` of sequence `sequence`. */
export function poolRow(
  pages: ArrayLike<number>,
  tableWidth: number,
  pageRows: number,
  sequence: number,
  row: number,
): number {
  const page = Math.floor(row / pageRows);
  return pages[sequence * tableWidth + (page % tableWidth)]! * pageRows + (row - page * pageRows);
}
