/**
 * Rows of a large table that were read lately, within a budget of bytes. A row has eight places it may be in; the one that was
 * unused for longest gives way. So the cache is a few flat arrays, with nothing to allocate or collect for millions of rows.
 */
const ways = 8;

export class RowCache {
  /** Bytes of a row as kept, a multiple of 4. */
  readonly rowBytes: number;
  readonly bytes: Uint8Array;
  readonly #sets: number;
  /** Row + 1 of each place; 0 is empty. */
  readonly #rows: Int32Array;
  readonly #lastUse: Uint32Array;
  #clock = 0;

  /** Takes at most `budgetBytes`, but room for eight rows at least. */
  constructor(rowBytes: number, budgetBytes: number) {
    this.rowBytes = Math.ceil(rowBytes / 4) * 4;
    this.#sets = Math.max(1, Math.floor(budgetBytes / (ways * (this.rowBytes + 8))));
    this.bytes = new Uint8Array(this.#sets * ways * this.rowBytes);
    this.#rows = new Int32Array(this.#sets * ways);
    this.#lastUse = new Uint32Array(this.#sets * ways);
  }

  get memoryBytes(): number {
    return this.bytes.byteLength + this.#rows.byteLength + this.#lastUse.byteLength;
  }

  /** Where the row lies in `bytes`; -1 if it is not there. */
  find(row: number): number {
    const first = this.#setOf(row);
    for (let place = first; place < first + ways; place++) {
      if (this.#rows[place] !== row + 1) continue;
      this.#lastUse[place] = this.#tick();
      return place * this.rowBytes;
    }
    return -1;
  }

  /** Keeps the row that stands in `from` at `at`. */
  add(row: number, from: Uint8Array, at: number): void {
    const first = this.#setOf(row);
    let oldest = first;
    for (let place = first + 1; place < first + ways; place++)
      if (this.#lastUse[place]! < this.#lastUse[oldest]!) oldest = place;
    this.#rows[oldest] = row + 1;
    this.#lastUse[oldest] = this.#tick();
    this.bytes.set(from.subarray(at, at + this.rowBytes), oldest * this.rowBytes);
  }

  #setOf(row: number): number {
    return ((Math.imul(row, 0x9e3779b1) >>> 0) % this.#sets) * ways;
  }

  #tick(): number {
    this.#clock = (this.#clock + 1) >>> 0;
    // Once in four thousand million uses all rows count as equally old.
    if (this.#clock === 0) this.#lastUse.fill(0);
    return this.#clock;
  }
}
