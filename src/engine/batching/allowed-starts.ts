/**
 * The constraint that an answer begins with one of some token sequences: until one of them is complete, only tokens that lead
 * further along one are allowed.
 */
export class AllowedStarts {
  #sequences: readonly (readonly number[])[];
  #depth = 0;

  constructor(sequences: readonly (readonly number[])[]) {
    this.#sequences = sequences.some((sequence) => sequence.length === 0) ? [] : sequences;
  }

  get isComplete(): boolean {
    return this.#sequences.length === 0;
  }

  /** The token was chosen. */
  push(id: number): void {
    this.#sequences = this.#sequences.filter((sequence) => sequence[this.#depth] === id);
    this.#depth++;
    if (this.#sequences.some((sequence) => sequence.length === this.#depth)) this.#sequences = [];
  }

  /** The logits with all tokens shut out that are not allowed now; the same array when all are. */
  mask(logits: Float32Array): Float32Array {
    if (this.isComplete) return logits;
    const masked = new Float32Array(logits.length).fill(Number.NEGATIVE_INFINITY);
    for (const sequence of this.#sequences) masked[sequence[this.#depth]!] = logits[sequence[this.#depth]!]!;
    return masked;
  }
}
