/**
 * The choice of the next token. In this order, as in the APIs that clients know:
 *   1. penalties and bias change the logits: they speak of single tokens, before anything is compared;
 *   2. temperature divides them, so that the cuts below see the distribution that is drawn from;
 *   3. top-k, then min-p (relative to the greatest), then top-p on what is left, which is normalised again;
 *   4. one uniform number, addressed by seed and position, picks a token.
 * Of equal logits the lower id is greater. Greedy (temperature 0) stops after step 1.
 */
import { RequestError } from "../../errors.ts";
import { randomSeed, uniform } from "./random.ts";
import { type ResolvedSamplingOptions, resolveSamplingOptions, type SamplingOptions } from "./sampling-options.ts";
import type { TokenHistory } from "./token-history.ts";

export class Sampler {
  readonly #options: ResolvedSamplingOptions;
  /** The seed in use: the given one, or a random one to report. */
  readonly seed: number;
  #logits = new Float64Array(0);

  constructor(options: SamplingOptions = {}) {
    this.#options = resolveSamplingOptions(options);
    this.seed = this.#options.seed ?? randomSeed();
  }

  /** The id of the next token. `logits` [vocabSize] stay as they are. Throws when they hold no number to choose. */
  sample(logits: Float32Array, history: TokenHistory): number {
    const candidates = this.candidates(logits, history);
    return candidates.ids.length === 1 ? candidates.ids[0]! : draw(candidates, uniform(this.seed, history.length));
  }

  /** What the next token is drawn from: after penalties, temperature and cuts. Throws like `sample`. */
  candidates(logits: Float32Array, history: TokenHistory): Candidates {
    const adjusted = this.#adjust(logits, history);
    const greatest = indexOfGreatest(adjusted);
    if (greatest < 0) {
      throw new RequestError("The logits hold no finite number", {
        code: "logits",
        hint: "The weights are damaged, or a bias excludes every token",
      });
    }
    if (this.#options.temperature === 0) return { ids: [greatest], weights: [1] };
    return this.#cut(adjusted, adjusted[greatest]!);
  }

  #adjust(logits: Float32Array, history: TokenHistory): Float64Array {
    if (this.#logits.length !== logits.length) this.#logits = new Float64Array(logits.length);
    const adjusted = this.#logits;
    adjusted.set(logits);
    const { repetitionPenalty, frequencyPenalty, presencePenalty, logitBias } = this.#options;
    if (repetitionPenalty !== 1) {
      const penalise = (id: number) => {
        const logit = adjusted[id]!;
        adjusted[id] = logit > 0 ? logit / repetitionPenalty : logit * repetitionPenalty;
      };
      for (const id of history.prompt) penalise(id);
      for (const id of history.counts.keys()) if (!history.prompt.has(id)) penalise(id);
    }
    if (frequencyPenalty !== 0 || presencePenalty !== 0) {
      for (const [id, count] of history.counts) adjusted[id]! -= frequencyPenalty * count + presencePenalty;
    }
    for (const [id, bias] of logitBias) if (id < adjusted.length) adjusted[id]! += bias;
    return adjusted;
  }

  /** The tokens that may be drawn, with weights relative to the greatest. */
  #cut(logits: Float64Array, greatest: number): Candidates {
    const { temperature, topK, minP, topP } = this.#options;
    let floor = greatest + temperature * (minP > 0 ? Math.log(minP) : leastLogWeight);
    const isTopK = topK > 0 && topK < logits.length;
    if (!isTopK && topP < 1) floor = Math.max(floor, nucleusFloor(logits, greatest, temperature, topP));
    const ids = isTopK ? greatestIds(logits, topK, floor) : idsAbove(logits, floor);
    const weights = ids.map((id) => Math.exp((logits[id]! - greatest) / temperature));
    if (topP >= 1) return { ids, weights };
    return nucleus(ids, weights, logits, topP);
  }
}

/** Tokens less probable than this beside the greatest add nothing that a float64 sum can tell, even all of them. */
const leastLogWeight = -45;

/** Tokens that may come, with weights that are proportional to their probabilities. */
export interface Candidates {
  readonly ids: readonly number[];
  readonly weights: readonly number[];
}

function indexOfGreatest(logits: Float64Array): number {
  let best = -1;
  let greatest = Number.NEGATIVE_INFINITY;
  for (let i = 0; i < logits.length; i++) {
    if (logits[i]! > greatest) {
      greatest = logits[i]!;
      best = i;
    }
  }
  return Number.isFinite(greatest) ? best : -1;
}

/** A logit below which tokens cannot be in the nucleus: all that lie below weigh less than 1 - topP together. */
function nucleusFloor(logits: Float64Array, greatest: number, temperature: number, topP: number): number {
  const least = greatest + temperature * leastLogWeight;
  let total = 0;
  for (const logit of logits) if (logit > least) total += Math.exp((logit - greatest) / temperature);
  const share = ((1 - topP) * total) / logits.length;
  return greatest + temperature * Math.log(share);
}

function idsAbove(logits: Float64Array, floor: number): number[] {
  const ids: number[] = [];
  for (let id = 0; id < logits.length; id++) {
    if (logits[id]! >= floor) ids.push(id);
  }
  return ids;
}

/** The ids of the k greatest logits that are not below the floor. */
function greatestIds(logits: Float64Array, k: number, floor: number): number[] {
  const least = Math.max(kthGreatest(logits, k), floor);
  const above = idsAbove(logits, least);
  if (above.length <= k) return above;
  // Ties at the border: the lower ids.
  const greater = above.filter((id) => logits[id]! > least);
  const tied = above.filter((id) => logits[id] === least).slice(0, k - greater.length);
  return [...greater, ...tied].sort((a, b) => a - b);
}

/** The k-th greatest logit: the root of a heap of the k greatest so far, whose root is the least of them. */
function kthGreatest(logits: Float64Array, k: number): number {
  const heap = new Float64Array(k).fill(Number.NEGATIVE_INFINITY);
  for (const logit of logits) {
    if (!(logit > heap[0]!)) continue;
    let parent = 0;
    for (;;) {
      let child = 2 * parent + 1;
      if (child >= k) break;
      if (child + 1 < k && heap[child + 1]! < heap[child]!) child++;
      if (heap[child]! >= logit) break;
      heap[parent] = heap[child]!;
      parent = child;
    }
    heap[parent] = logit;
  }
  return heap[0]!;
}

/** The greatest candidates whose weights reach topP of the whole; at least one. */
function nucleus(ids: readonly number[], weights: readonly number[], logits: Float64Array, topP: number): Candidates {
  const order = ids.map((_, i) => i).sort((a, b) => logits[ids[b]!]! - logits[ids[a]!]! || a - b);
  const needed = topP * weights.reduce((sum, weight) => sum + weight, 0);
  let sum = 0;
  let count = 0;
  while (count < order.length && (count === 0 || sum < needed)) sum += weights[order[count++]!]!;
  const kept = order.slice(0, count);
  return { ids: kept.map((i) => ids[i]!), weights: kept.map((i) => weights[i]!) };
}

function draw({ ids, weights }: Candidates, random: number): number {
  let rest = random * weights.reduce((sum, weight) => sum + weight, 0);
  for (let i = 0; i < ids.length - 1; i++) {
    rest -= weights[i]!;
    if (rest < 0) return ids[i]!;
  }
  return ids.at(-1)!;
}
