/** How a request of llama-server's routes is sampled, and how that is told back as `generation_settings`. */
import { randomInt } from "node:crypto";
import type { SamplingOptions } from "../../../engine/sampling/sampling-options.ts";
import { withoutUndefined } from "../../../engine/without-undefined.ts";
import { RequestError } from "../../../errors.ts";
import type { Services } from "../../route.ts";
import type { LlamaGenerationBody } from "../schemas/llama.ts";
import type { LlamaOptions } from "./llama-options.ts";

/** Of a token that is not to come: the most that a bias may take away. */
const never = -100;

export interface LlamaSettings {
  readonly sampling: SamplingOptions & { readonly seed: number };
  /** Tokens asked for; undefined: until the context is full. */
  readonly nPredict: number | undefined;
  readonly stop: readonly string[];
  readonly nProbs: number;
  /** Of the model, or after sampling. */
  readonly probabilitiesOf: "model" | "sampling";
  readonly ignoresEos: boolean;
  /** `generation_settings` of the answer. */
  readonly told: Readonly<Record<string, unknown>>;
}

export function llamaSettings(body: LlamaGenerationBody, services: Services, options: LlamaOptions): LlamaSettings {
  const info = services.requireInfo();
  const seed = body.seed ?? options.seed ?? -1;
  const ignoresEos = body.ignore_eos ?? options.ignoreEos;
  const biases = readBiases(body, ignoresEos, services);
  const sampling = {
    ...withoutUndefined({
      temperature: body.temperature ?? options.temperature ?? info.defaults.temperature,
      topK: body.top_k === -1 ? 0 : (body.top_k ?? info.defaults.topK),
      topP: body.top_p ?? info.defaults.topP,
      minP: body.min_p,
      repetitionPenalty: body.repeat_penalty,
      presencePenalty: body.presence_penalty,
      frequencyPenalty: body.frequency_penalty,
    }),
    logitBias: Object.fromEntries(biases),
    seed: seed === -1 ? randomInt(2 ** 31) : seed,
  };
  const nPredict = askedTokens(body, options, info.defaults.maxTokens);
  const nProbs = body.n_probs ?? body.logprobs ?? 0;
  const stop = body.stop === undefined ? [] : [body.stop].flat();
  const probabilitiesOf = body.post_sampling_probs ? ("sampling" as const) : ("model" as const);
  const settings = { sampling, nPredict, stop, nProbs, probabilitiesOf, ignoresEos };
  return { ...settings, told: describe({ ...settings, body, seed, biases }) };
}

/** -1 is as many as the server was told, -2 until the context is full: an answer is never shifted out of the context here. */
function askedTokens({ n_predict, max_tokens }: LlamaGenerationBody, { predict }: LlamaOptions, byModel?: number) {
  const asked = n_predict ?? max_tokens;
  if (asked === undefined) return predict ?? byModel;
  if (asked === -1) return predict;
  return asked < 0 ? undefined : asked;
}

/** By id or by text, whose tokens all get it; `false` is never. */
function readBiases({ logit_bias }: LlamaGenerationBody, ignoresEos: boolean, services: Services): Map<number, number> {
  const info = services.requireInfo();
  const given = Array.isArray(logit_bias) ? logit_bias : Object.entries(logit_bias ?? {});
  const biases = new Map<number, number>();
  for (const [name, value] of given) {
    const bias = value === false ? never : Math.max(-100, Math.min(100, value));
    for (const id of tokensNamed(name, services)) {
      if (id >= info.vocabSize)
        throw new RequestError(`No token has the id ${id}`, { code: "request", where: "logit_bias" });
      biases.set(id, bias);
    }
  }
  if (ignoresEos) for (const id of info.eosTokenIds) biases.set(id, never);
  return biases;
}

function tokensNamed(name: number | string, { tokenizer }: Services): readonly number[] {
  if (typeof name === "number") return [name];
  return /^\d+$/.test(name) ? [Number(name)] : tokenizer.encode(name, { special: true });
}

interface Described extends Omit<LlamaSettings, "told"> {
  readonly body: LlamaGenerationBody;
  readonly seed: number;
  readonly biases: ReadonlyMap<number, number>;
}

/** With llama-server's neutral values for what this sampler does not have. */
function describe({
  body,
  sampling,
  nPredict,
  stop,
  nProbs,
  ignoresEos,
  seed,
  biases,
}: Described): Record<string, unknown> {
  return {
    seed,
    temperature: sampling.temperature ?? 1,
    dynatemp_range: 0,
    dynatemp_exponent: 1,
    top_k: sampling.topK ?? 0,
    top_p: sampling.topP ?? 1,
    min_p: sampling.minP ?? 0,
    top_n_sigma: -1,
    xtc_probability: 0,
    xtc_threshold: 0.1,
    typical_p: 1,
    repeat_last_n: -1,
    repeat_penalty: sampling.repetitionPenalty ?? 1,
    presence_penalty: sampling.presencePenalty ?? 0,
    frequency_penalty: sampling.frequencyPenalty ?? 0,
    dry_multiplier: 0,
    mirostat: 0,
    adaptive_target: -1,
    adaptive_decay: 0,
    stop,
    max_tokens: nPredict ?? -1,
    n_predict: nPredict ?? -1,
    ignore_eos: ignoresEos,
    stream: body.stream ?? false,
    logit_bias: [...biases].map(([token, bias]) => ({ bias: bias <= never ? null : bias, token })),
    n_probs: nProbs,
    grammar: "",
    samplers: ["penalties", "top_k", "top_p", "min_p", "temperature"],
    timings_per_token: body.timings_per_token ?? false,
    post_sampling_probs: body.post_sampling_probs ?? false,
    lora: [],
  };
}
