/** Sampling parameters as OpenAI, DeepSeek and vLLM spell them. */
import type { z } from "zod";
import type { SamplingOptions } from "../../engine/sampling/sampling-options.ts";
import { withoutUndefined } from "../../engine/without-undefined.ts";
import type { samplingFields } from "./schemas/chat.ts";

type Fields = { readonly [K in keyof typeof samplingFields]?: z.infer<(typeof samplingFields)[K]> | undefined };

export function readSampling(body: Fields): SamplingOptions {
  return withoutUndefined({
    temperature: body.temperature,
    topP: body.top_p,
    topK: body.top_k === -1 ? 0 : body.top_k, // -1 is vLLM's "all"
    minP: body.min_p,
    presencePenalty: body.presence_penalty,
    frequencyPenalty: body.frequency_penalty,
    repetitionPenalty: body.repetition_penalty,
    logitBias: body.logit_bias as Record<number, number> | undefined, // keys are digits: the schema says so
    seed: body.seed,
  });
}
