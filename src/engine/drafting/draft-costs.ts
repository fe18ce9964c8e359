/**
 * What steps and drafts cost, learnt from those that were measured, and how long a draft is worth its while. A step lasts a + b n
 * for n tokens (least squares over the last ones). A draft of k tokens, each right with probability p given those before it, turns a
 * step for one token into one for 1 + p + ... + p^k, which lasts b k longer, beside what drafting itself takes.
 */

/** What an older measurement counts beside one that is a step younger. */
const forgetting = 0.97;
/** Steps that hold a prompt as well say little of a token more or less. */
const mostTokens = 64;
/** Below this many measurements nothing is known. */
const fewestSteps = 6;
/** A draft must promise so much more speed: what is learnt is never exact. */
const leastGain = 1.02;

export class DraftCosts {
  /** Decaying sums over steps of n tokens and t milliseconds. */
  #sums = { steps: 0, n: 0, t: 0, nn: 0, nt: 0 };
  #draftMs: number | undefined;
  readonly #isChained: boolean;

  /** `isChained`: a draft of k tokens takes k times as long as one of one; else all drafts last the same. */
  constructor(isChained: boolean) {
    this.#isChained = isChained;
  }

  /** A step of so many tokens, all sequences together. */
  step(tokens: number, milliseconds: number): void {
    if (tokens > mostTokens || !(milliseconds > 0)) return;
    const { steps, n, t, nn, nt } = this.#sums;
    const old = (sum: number) => sum * forgetting;
    this.#sums = {
      steps: old(steps) + 1,
      n: old(n) + tokens,
      t: old(t) + milliseconds,
      nn: old(nn) + tokens * tokens,
      nt: old(nt) + tokens * milliseconds,
    };
  }

  /** A draft of at most so many tokens a sequence, for all sequences together. */
  draft(tokens: number, milliseconds: number): void {
    if (tokens === 0) return;
    const found = this.#isChained ? milliseconds / tokens : milliseconds;
    this.#draftMs = this.#draftMs === undefined ? found : 0.8 * this.#draftMs + 0.2 * found;
  }

  /** Tokens of the draft, 0 to `most`, that give the most tokens a second, where `sequences` draft alike. */
  best(acceptance: number, most: number, sequences: number): number {
    const line = this.#line();
    if (line === undefined) return most;
    let [best, bestSpeed, expected, right] = [0, 0, 0, 1];
    for (let k = 0; k <= most; k++) {
      expected += right;
      right *= acceptance;
      const drafting = k === 0 ? 0 : (this.#draftMs ?? 0) * (this.#isChained ? k : 1);
      const speed = expected / (line.base + line.each * sequences * (1 + k) + drafting);
      if (speed <= bestSpeed * (best === 0 ? leastGain : 1)) continue;
      best = k;
      bestSpeed = speed;
    }
    return best;
  }

  /** Undefined while the steps do not tell what a token more costs. */
  #line(): { base: number; each: number } | undefined {
    const { steps, n, t, nn, nt } = this.#sums;
    if (steps < fewestSteps) return undefined;
    const variance = nn / steps - (n / steps) ** 2;
    if (variance < 0.05) return undefined;
    const each = Math.max(0, (nt / steps - (n / steps) * (t / steps)) / variance);
    return { base: Math.max(0, (t - each * n) / steps), each };
  }
}
