/**
 * Log probabilities as clients see them: of the model's own distribution, before temperature, penalties and cuts, or of what a token
 * was drawn from, after them.
 */
import type { Candidates } from "../sampling/sampler.ts";
import type { TokenLogprob } from "./engine-port.ts";

/** The most alternatives that a request may ask for. */
export const mostTopLogprobs = 20;

/** The log probability of token `id` under `logits` [vocabSize], and the `top` greatest with theirs; of equal ones the lower id. */
export function tokenLogprob(logits: Float32Array, id: number, top: number): TokenLogprob {
  const logSum = logSumExp(logits);
  return {
    id,
    logprob: logits[id]! - logSum,
    top: greatest(logits, top).map((other) => ({ id: other, logprob: logits[other]! - logSum })),
  };
}

/** The same among the candidates that token `id` was drawn from; fewer than `top` where fewer could have come. */
export function drawnLogprob({ ids, weights }: Candidates, id: number, top: number): TokenLogprob {
  const logSum = Math.log(weights.reduce((sum, weight) => sum + weight, 0));
  const order = ids.map((_, i) => i).sort((a, b) => weights[b]! - weights[a]! || ids[a]! - ids[b]!);
  const describe = (i: number) => ({ id: ids[i]!, logprob: Math.log(weights[i]!) - logSum });
  return { ...describe(ids.indexOf(id)), top: order.slice(0, top).map(describe) };
}

function logSumExp(logits: Float32Array): number {
  let most = Number.NEGATIVE_INFINITY;
  for (const logit of logits) if (logit > most) most = logit;
  let sum = 0;
  for (const logit of logits) sum += Math.exp(logit - most);
  return most + Math.log(sum);
}

/** Ids of the `count` greatest: a short sorted list that most logits are too small for. */
function greatest(logits: Float32Array, count: number): number[] {
  const ids: number[] = [];
  if (count === 0) return ids;
  for (let id = 0; id < logits.length; id++) {
    const logit = logits[id]!;
    if (ids.length === count && !(logit > logits[ids[count - 1]!]!)) continue;
    let place = ids.length;
    while (place > 0 && logits[ids[place - 1]!]! < logit) place--;
    ids.splice(place, 0, id);
    if (ids.length > count) ids.pop();
  }
  return ids;
}
