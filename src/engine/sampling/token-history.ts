/** Which tokens a request has seen and written, counted as they come, so that penalties cost nothing to look up. */
export class TokenHistory {
  readonly #prompt: ReadonlySet<number>;
  readonly #generated: number[] = [];
  readonly #counts = new Map<number, number>();

  constructor(promptIds: Iterable<number>) {
    this.#prompt = new Set(promptIds);
  }

  /** Tokens generated so far: the index of the next one. */
  get length(): number {
    return this.#generated.length;
  }

  /** How often each generated token stands in the answer. */
  get counts(): ReadonlyMap<number, number> {
    return this.#counts;
  }

  /** The different tokens of the prompt. */
  get prompt(): ReadonlySet<number> {
    return this.#prompt;
  }

  push(id: number): void {
    this.#generated.push(id);
    this.#counts.set(id, (this.#counts.get(id) ?? 0) + 1);
  }

  /** Forgets the last `count` generated tokens. */
  rewind(count: number): void {
    for (let i = 0; i < count; i++) {
      const id = this.#generated.pop();
      if (id === undefined) return;
      const left = this.#counts.get(id)! - 1;
      if (left === 0) this.#counts.delete(id);
      else this.#counts.set(id, left);
    }
  }
}
