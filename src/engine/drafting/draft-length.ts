/**
 * How many tokens to draft next, learnt from what came of the last drafts: twice as many after a draft that was right throughout,
 * about as many as were right otherwise, and never more than pays by what steps and drafts cost. Two drafts in a row without a right
 * token, or costs that no draft brings in, start a pause, twice as long each time, so that text that cannot be guessed costs next to
 * nothing; after it one draft tries again.
 */
import type { DraftCosts } from "./draft-costs.ts";

export class DraftLength {
  readonly #most: number;
  readonly #costs: Pick<DraftCosts, "best"> | undefined;
  #length: number;
  #misses = 0;
  #unpaid = 0;
  #pause = 0;
  /** Decaying counts of drafted tokens that the model judged (all before them were right), and of those that were right. */
  #tried = 2;
  #right: number;

  /** `acceptance`: what share of drafted tokens was right so far, elsewhere. */
  constructor(most: number, costs?: Pick<DraftCosts, "best">, acceptance = 0.7) {
    this.#most = most;
    this.#costs = costs;
    this.#length = Math.min(firstLength, most);
    this.#right = this.#tried * acceptance;
  }

  /** How likely a drafted token is right, given those before it. */
  get acceptance(): number {
    return this.#right / this.#tried;
  }

  /** Tokens to draft now, while `sequences` draft alike; asked once a step. */
  next(sequences = 1): number {
    if (this.#pause > 0) {
      this.#pause--;
      return 0;
    }
    const paid = this.#costs?.best(this.acceptance, this.#length, sequences) ?? this.#length;
    if (paid > 0) this.#unpaid = 0;
    else this.#pause = Math.min(mostPause, 2 ** (this.#unpaid++ + 3));
    // The first verdict is taken as it is; later ones are tried: costs change, and texts.
    return paid > 0 ? paid : Math.min(this.#unpaid - 1, 1, this.#most);
  }

  verified(drafted: number, accepted: number): void {
    if (drafted === 0) return;
    this.#tried = this.#tried * forgetting + Math.min(drafted, accepted + 1);
    this.#right = this.#right * forgetting + accepted;
    this.#length = Math.min(this.#most, accepted === drafted ? Math.max(2 * accepted, this.#length) : accepted + 1);
    this.#misses = accepted > 0 ? 0 : this.#misses + 1;
    if (this.#misses >= patience) this.#pause = Math.min(mostPause, 2 ** (this.#misses + 1));
  }
}

const firstLength = 3;
const patience = 2;
const mostPause = 128;
const forgetting = 0.9;
