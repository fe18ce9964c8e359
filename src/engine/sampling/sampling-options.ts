/** How the next token is chosen from its logits. Every option is checked here, once, whoever gave it. */
import { RequestError } from "../../errors.ts";

export interface SamplingOptions {
  /** Divides the logits; 0 always takes the greatest (greedy). Default 1. */
  readonly temperature?: number;
  /** Only the k greatest; 0 is all. Default 0. */
  readonly topK?: number;
  /** Only the greatest whose probabilities reach this sum. Default 1: all. */
  readonly topP?: number;
  /** Only those at least this fraction as probable as the greatest. Default 0: all. */
  readonly minP?: number;
  /** Divides positive and multiplies negative logits of tokens in the prompt or the answer (arXiv 1909.05858). Default 1. */
  readonly repetitionPenalty?: number;
  /** Subtracted for each time that a token stands in the answer. Default 0. */
  readonly frequencyPenalty?: number;
  /** Subtracted once for a token that stands in the answer. Default 0. */
  readonly presencePenalty?: number;
  /** Added to the logits of single tokens, by id: -100 to 100. */
  readonly logitBias?: Readonly<Record<number, number>> | ReadonlyMap<number, number>;
  /** A whole number; the same seed gives the same answer. Default: a random one. */
  readonly seed?: number;
}

/** All options with a value, checked. */
export interface ResolvedSamplingOptions {
  readonly temperature: number;
  readonly topK: number;
  readonly topP: number;
  readonly minP: number;
  readonly repetitionPenalty: number;
  readonly frequencyPenalty: number;
  readonly presencePenalty: number;
  readonly logitBias: ReadonlyMap<number, number>;
  readonly seed: number | undefined;
}

/** Throws a RequestError that names the option and its range. */
export function resolveSamplingOptions(options: SamplingOptions): ResolvedSamplingOptions {
  const { seed } = options;
  if (seed !== undefined && !Number.isSafeInteger(seed)) throw refuse("seed", seed, "a whole number");
  const topK = inRange("topK", options.topK ?? 0, 0, 2 ** 31 - 1);
  if (!Number.isInteger(topK)) throw refuse("topK", topK, "a whole number");
  return {
    temperature: inRange("temperature", options.temperature ?? 1, 0, 100),
    topK,
    topP: inRange("topP", options.topP ?? 1, 0, 1),
    minP: inRange("minP", options.minP ?? 0, 0, 1),
    repetitionPenalty: inRange("repetitionPenalty", options.repetitionPenalty ?? 1, 0.01, 100),
    frequencyPenalty: inRange("frequencyPenalty", options.frequencyPenalty ?? 0, -100, 100),
    presencePenalty: inRange("presencePenalty", options.presencePenalty ?? 0, -100, 100),
    logitBias: readBias(options.logitBias ?? {}),
    seed,
  };
}

function inRange(name: string, value: number, least: number, most: number): number {
  if (typeof value === "number" && value >= least && value <= most) return value;
  throw refuse(name, value, `a number from ${least} to ${most}`);
}

function readBias(bias: NonNullable<SamplingOptions["logitBias"]>): Map<number, number> {
  const entries: Iterable<[number, number]> =
    bias instanceof Map ? bias : Object.entries(bias).map(([id, value]) => [Number(id), value as number]);
  const result = new Map<number, number>();
  for (const [id, value] of entries) {
    if (!Number.isInteger(id) || id < 0) throw refuse("logitBias", id, "a map from token ids");
    result.set(id, inRange(`logitBias[${id}]`, value, -100, 100));
  }
  return result;
}

function refuse(name: string, value: unknown, expected: string): RequestError {
  return new RequestError(`${name} is ${String(value)}, not ${expected}`, { code: "sampling", where: name });
}
