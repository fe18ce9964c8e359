/** What a model drafts with: a module of its own that guesses the tokens behind the one that is computed next. */
import type { Sequence } from "../model-runner.ts";

export interface ModelDrafter {
  readonly kind: "mtp" | "dspark";
  /** Tokens of a draft at most. */
  readonly mostTokens: number;
  /** Whether a longer draft costs more; else all tokens come at once. */
  readonly isChained: boolean;
  /** The tokens that may follow each anchor. A sequence that has computed nothing gets no draft. */
  draft(requests: readonly DraftRequest[]): Promise<number[][]>;
}

export interface DraftRequest {
  readonly sequence: Sequence;
  /** The token behind all computed ones: chosen, not yet computed. */
  readonly anchor: number;
  /** Tokens at most. */
  readonly count: number;
  /**
   * Picks the token behind the anchor and those drafted so far from its logits [vocabSize]. Sampled answers draw with the random
   * number that the answer itself will draw with there: a draft that is distributed alike is then mostly the same token.
   */
  readonly choose: (logits: Float32Array, drafted: readonly number[]) => number;
}

/** The choice of greedy decoding. */
export function mostProbable(logits: Float32Array): number {
  return logits.reduce((best, value, id) => (value > logits[best]! ? id : best), 0);
}
