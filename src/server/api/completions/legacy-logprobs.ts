/** Log probabilities in the shape of the older completions: four lists side by side. */
import type { TokenText } from "../../generation/token-logprobs.ts";
import { finiteLogprob } from "../chat/chat-encoder.ts";
import type { LegacyLogprobs } from "../schemas/completions.ts";

/** A token of a prompt has no log probability where nothing stands before it. */
export type ScoredToken = Omit<TokenText, "logprob"> & { readonly logprob: number | undefined };

/** Appends tokens to what was told before; `offset` counts the characters up to them. */
export function legacyLogprobs(tokens: readonly ScoredToken[], alternatives: number, offset: number): LegacyLogprobs {
  let at = offset;
  const offsets = tokens.map(({ token }) => {
    const start = at;
    at += token.length;
    return start;
  });
  return {
    tokens: tokens.map(({ token }) => token),
    token_logprobs: tokens.map(({ logprob }) => (logprob === undefined ? null : finiteLogprob(logprob))),
    top_logprobs: alternatives === 0 ? null : tokens.map(topOf),
    text_offset: offsets,
  };
}

/** Different ids may show as the same text: the more probable one is told. */
function topOf({ top, logprob }: ScoredToken): Record<string, number> | null {
  if (logprob === undefined) return null;
  return Object.fromEntries(top.toReversed().map((one) => [one.token, finiteLogprob(one.logprob)]));
}
