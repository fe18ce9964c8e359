/**
 * How many tokens to draft next, learnt from what came of the last drafts: twice as many after a draft that was right throughout,
 * about as many as were right otherwise. Two drafts in a row without a right token start a pause, twice as long each time, so that
 * text that cannot be guessed costs next to nothing.
 */
export class DraftLength {
  readonly #most: number;
  #length: number;
  #misses = 0;
  #pause = 0;

  constructor(most: number) {
    this.#most = most;
    this.#length = Math.min(firstLength, most);
  }

  /** Tokens to draft now; asked once a step. */
  next(): number {
    if (this.#pause === 0) return this.#length;
    this.#pause--;
    return 0;
  }

  verified(drafted: number, accepted: number): void {
    if (drafted === 0) return;
    this.#length = Math.min(this.#most, accepted === drafted ? Math.max(2 * accepted, this.#length) : accepted + 1);
    this.#misses = accepted > 0 ? 0 : this.#misses + 1;
    if (this.#misses >= patience) this.#pause = Math.min(mostPause, 2 ** (this.#misses + 1));
  }
}

const firstLength = 3;
const patience = 2;
const mostPause = 128;
