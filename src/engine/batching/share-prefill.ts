/**
 * Shares the tokens of a step out among prompts: better classes first, keys of a class in turns of one block, a key's prompts in
 * their order. Chunks end where blocks of 128 tokens do, so that compressor rows close there; only the last one may be shorter.
 */
import { blockTokens } from "../../tensor/paging.ts";
import type { FairQueue } from "./fair-queue.ts";

export interface PrefillCandidate {
  readonly key: string;
  readonly computed: number;
  readonly length: number;
  /** A chunk ends here, to be remembered. */
  readonly stop: number | undefined;
  readonly wantsAllLogits: boolean;
}

interface Share<T> {
  readonly tokens: number;
  /** Rows of logits for those that want all of them. */
  readonly logits: number;
  readonly classOf: (candidate: T) => number;
  readonly turns: FairQueue;
}

/** A prompt is remembered at every so many tokens, what a later hit computes again at most; chunks stop there. */
export const rememberTokens = 2048;

/** How far each prompt that takes part is computed after the step. `candidates` stand in the order of class and age. */
export function sharePrefill<T extends PrefillCandidate>(candidates: readonly T[], share: Share<T>): Map<T, number> {
  const ends = new Map<T, number>();
  let { tokens, logits } = share;
  const stepOf = (candidate: T): number => {
    const from = ends.get(candidate) ?? candidate.computed;
    const isStopped = ends.has(candidate) && (from === candidate.stop || from % rememberTokens === 0);
    if (isStopped || from === candidate.length) return 0;
    const size = Math.min(candidate.length, nextBlock(from)) - from;
    return size <= tokens && (!candidate.wantsAllLogits || size <= logits) ? size : 0;
  };
  for (;;) {
    const ready = candidates.filter((candidate) => stepOf(candidate) > 0);
    if (ready.length === 0) break;
    const first = share.classOf(ready[0]!);
    const ofClass = ready.filter((candidate) => share.classOf(candidate) === first);
    const key = share.turns.pick(new Set(ofClass.map((candidate) => candidate.key)));
    const chosen = ofClass.find((candidate) => candidate.key === key)!;
    const size = stepOf(chosen);
    ends.set(chosen, (ends.get(chosen) ?? chosen.computed) + size);
    share.turns.charge(chosen.key, size);
    tokens -= size;
    if (chosen.wantsAllLogits) logits -= size;
  }
  // Behind a very long context a step has room for less than a block: then a part of one must do.
  const [first] = candidates;
  if (ends.size === 0 && first !== undefined && tokens > 0 && tokens < blockTokens) {
    const size = Math.min(tokens, first.length - first.computed, nextBlock(first.computed) - first.computed);
    ends.set(first, first.computed + (first.wantsAllLogits ? Math.min(size, logits) : size));
  }
  return ends;
}

function nextBlock(position: number): number {
  return (Math.floor(position / blockTokens) + 1) * blockTokens;
}
