/**
 * Byte-pair encoding of one piece: its bytes are tokens, then again and again the adjacent pair of lowest rank is merged,
 * leftmost first on a tie (Sennrich et al. 2016, arXiv 1508.07909, on bytes). A heap of candidate pairs keyed by rank and
 * position, and a linked list of the remaining tokens: n log n for a piece of any length.
 */

/** Which pairs merge: open addressing over (left, right), power-of-two size. */
export class MergeTable {
  readonly #mask: number;
  readonly #left: Int32Array;
  readonly #right: Int32Array;
  readonly #rank: Int32Array;
  readonly #merged: Int32Array;

  /** With room for so many merges. */
  constructor(merges: number) {
    const size = 2 ** Math.ceil(Math.log2(Math.max(2, merges * 2)));
    this.#mask = size - 1;
    this.#left = new Int32Array(size).fill(-1);
    this.#right = new Int32Array(size);
    this.#rank = new Int32Array(size);
    this.#merged = new Int32Array(size);
  }

  /** In the order of their ranks. */
  add(left: number, right: number, merged: number, rank: number): void {
    const slot = this.#slot(left, right);
    if (this.#left[slot] === left) return; // a pair that stands twice keeps its first rank
    this.#left[slot] = left;
    this.#right[slot] = right;
    this.#rank[slot] = rank;
    this.#merged[slot] = merged;
  }

  /** The rank of a pair, or -1 if it does not merge. */
  rank(left: number, right: number): number {
    const slot = this.#slot(left, right);
    return this.#left[slot] === left ? this.#rank[slot]! : -1;
  }

  merged(left: number, right: number): number {
    return this.#merged[this.#slot(left, right)]!;
  }

  /** Where the pair is, or the free place where it would be. */
  #slot(left: number, right: number): number {
    let slot = (Math.imul(left, 0x9e3779b1) ^ Math.imul(right, 0x85ebca6b)) >>> 0;
    slot = (slot ^ (slot >>> 15)) & this.#mask;
    while (this.#left[slot] !== -1 && (this.#left[slot] !== left || this.#right[slot] !== right)) {
      slot = (slot + 1) & this.#mask;
    }
    return slot;
  }
}

/** A candidate is rank * 2^32 + position: smaller is earlier, and both fit a double exactly. */
const rankUnit = 2 ** 32;

/** Merges the tokens of a piece in place; returns how many are left at the front of the array. */
export function mergePairs(tokens: Int32Array, count: number, table: MergeTable): number {
  return mergeInSteps(tokens, count, table, Number.POSITIVE_INFINITY).next().value!; // one step is all
}

/** The same, with a pause after so many candidates. */
export function* mergeInSteps(
  tokens: Int32Array,
  count: number,
  table: MergeTable,
  step: number,
): Generator<undefined, number> {
  const next = new Int32Array(count);
  const previous = new Int32Array(count);
  const heap = new CandidateHeap(count);
  for (let i = 0; i < count; i++) {
    next[i] = i + 1;
    previous[i] = i - 1;
    if (i + 1 < count) heap.collect(table.rank(tokens[i]!, tokens[i + 1]!), i);
  }
  heap.order();
  const offer = (left: number) => {
    if (left >= 0 && next[left]! < count) heap.push(table.rank(tokens[left]!, tokens[next[left]!]!), left);
  };
  let untilPause = step;
  for (let candidate = heap.pop(); candidate !== undefined; candidate = heap.pop()) {
    if (--untilPause < 0) {
      yield;
      untilPause = step;
    }
    const rank = Math.floor(candidate / rankUnit);
    const left = candidate - rank * rankUnit;
    const right = next[left]!;
    // Stale candidates: the token was merged away, or now stands beside another one.
    if (tokens[left]! < 0 || right >= count || table.rank(tokens[left]!, tokens[right]!) !== rank) continue;
    tokens[left] = table.merged(tokens[left]!, tokens[right]!);
    tokens[right] = -1;
    next[left] = next[right]!;
    if (next[left]! < count) previous[next[left]!] = left;
    offer(left);
    offer(previous[left]!);
  }
  let kept = 0;
  for (let i = 0; i < count; i = next[i]!) tokens[kept++] = tokens[i]!;
  return kept;
}

class CandidateHeap {
  #items: Float64Array;
  #size = 0;

  constructor(capacity: number) {
    this.#items = new Float64Array(capacity);
  }

  /** Adds a pair without ordering; ranks below 0 are pairs that do not merge. */
  collect(rank: number, position: number): void {
    if (rank >= 0) this.#items[this.#size++] = rank * rankUnit + position;
  }

  order(): void {
    for (let i = (this.#size >> 1) - 1; i >= 0; i--) this.#siftDown(i);
  }

  push(rank: number, position: number): void {
    if (rank < 0) return;
    if (this.#size === this.#items.length) {
      const grown = new Float64Array(2 * this.#items.length + 8);
      grown.set(this.#items);
      this.#items = grown;
    }
    let child = this.#size++;
    const item = rank * rankUnit + position;
    while (child > 0) {
      const parent = (child - 1) >> 1;
      if (this.#items[parent]! <= item) break;
      this.#items[child] = this.#items[parent]!;
      child = parent;
    }
    this.#items[child] = item;
  }

  pop(): number | undefined {
    if (this.#size === 0) return undefined;
    const top = this.#items[0]!;
    this.#items[0] = this.#items[--this.#size]!;
    this.#siftDown(0);
    return top;
  }

  #siftDown(from: number): void {
    const items = this.#items;
    const item = items[from]!;
    let parent = from;
    for (;;) {
      let child = 2 * parent + 1;
      if (child >= this.#size) break;
      if (child + 1 < this.#size && items[child + 1]! < items[child]!) child++;
      if (items[child]! >= item) break;
      items[parent] = items[child]!;
      parent = child;
    }
    items[parent] = item;
  }
}
