/** The requests of llama-server's own routes. Names and ranges are its own; -1 often means "all" or "no limit". */
import { z } from "zod";

const probability = z.number().min(0).max(1);
const tokenOrText = z.union([z.int().min(0), z.string()]);

/** A text with media in it. Media are refused by name. */
const promptObject = z.looseObject({ prompt_string: z.string(), multimodal_data: z.unknown().optional() });
/** Token ids and texts may alternate within one prompt. */
const onePrompt = z.union([z.string(), z.array(tokenOrText), promptObject]);
const prompts = z.union([onePrompt, z.array(onePrompt)]);

const bias = z.union([z.number(), z.literal(false)]);
const logitBias = z.union([z.array(z.tuple([tokenOrText, bias])), z.record(z.string(), bias)]);

const generationFields = {
  n_predict: z.int().min(-2).optional(),
  max_tokens: z.int().min(-2).optional(),
  stream: z.boolean().optional(),
  temperature: z.number().min(0).max(100).optional(),
  top_k: z.int().min(-1).optional(),
  top_p: probability.optional(),
  min_p: probability.optional(),
  repeat_penalty: z.number().min(0.01).max(100).optional(),
  presence_penalty: z.number().min(-100).max(100).optional(),
  frequency_penalty: z.number().min(-100).max(100).optional(),
  seed: z.int().optional().meta({ description: "-1 is a random one" }),
  stop: z.union([z.string(), z.array(z.string())]).optional(),
  logit_bias: logitBias.optional(),
  ignore_eos: z.boolean().optional(),
  n_probs: z.int().min(0).max(20).optional(),
  logprobs: z.int().min(0).max(20).optional(),
  post_sampling_probs: z.boolean().optional(),
  return_tokens: z.boolean().optional(),
  return_progress: z.boolean().optional(),
  timings_per_token: z.boolean().optional(),
  t_max_predict_ms: z.number().optional(),
  response_fields: z.array(z.string().max(200)).max(100).optional(),
  id_slot: z.int().min(-1).optional(),
  cache_prompt: z.boolean().optional(),
};

/** What both say of the answer. */
const generationRequest = z.looseObject(generationFields);
export type LlamaGenerationBody = z.infer<typeof generationRequest>;

export const llamaCompletionRequest = z.looseObject({ prompt: prompts, ...generationFields });
export type LlamaCompletionBody = z.infer<typeof llamaCompletionRequest>;

export const infillRequest = z.looseObject({
  input_prefix: z.string().default(""),
  input_suffix: z.string().default(""),
  prompt: z.string().default("").meta({ description: "What the gap begins with" }),
  input_extra: z
    .array(z.looseObject({ filename: z.string().optional(), text: z.string() }))
    .max(1000)
    .default([])
    .meta({ description: "Other files, the least important first" }),
  ...generationFields,
});
export type InfillBody = z.infer<typeof infillRequest>;
