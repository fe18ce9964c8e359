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

const timings = z.strictObject({
  cache_n: z.int(),
  prompt_n: z.int(),
  prompt_ms: z.number(),
  prompt_per_token_ms: z.number(),
  prompt_per_second: z.number(),
  predicted_n: z.int(),
  predicted_ms: z.number(),
  predicted_per_token_ms: z.number(),
  predicted_per_second: z.number(),
  draft_n: z.int().optional(),
  draft_n_accepted: z.int().optional(),
});

const answerFields = {
  index: z.int(),
  id_slot: z.int(),
  content: z.string(),
  tokens: z.array(z.int()),
  tokens_predicted: z.int(),
  tokens_evaluated: z.int(),
  completion_probabilities: z.array(z.looseObject({ id: z.int(), token: z.string() })).optional(),
};

/** A part of a streamed answer. */
const llamaPart = z.strictObject({
  ...answerFields,
  stop: z.literal(false),
  timings: timings.optional(),
  prompt_progress: z.looseObject({ total: z.int(), cache: z.int(), processed: z.int() }).optional(),
});

/** A whole answer, and the last part of a streamed one. */
export const llamaCompletion = z.strictObject({
  ...answerFields,
  stop: z.literal(true),
  model: z.string(),
  generation_settings: z.looseObject({ seed: z.int(), n_predict: z.int(), stop: z.array(z.string()) }),
  prompt: z.string(),
  has_new_line: z.boolean(),
  truncated: z.boolean(),
  stop_type: z.enum(["eos", "limit", "word", "none"]),
  stopping_word: z.string(),
  tokens_cached: z.int(),
  timings,
});
export const llamaEvent = z.discriminatedUnion("stop", [llamaPart, llamaCompletion]);

export const props = z.strictObject({
  default_generation_settings: z.strictObject({
    id: z.int(),
    n_ctx: z.int(),
    is_processing: z.boolean(),
    params: z.looseObject({ seed: z.int() }),
  }),
  total_slots: z.int(),
  model_alias: z.string(),
  model_path: z.string(),
  chat_template: z.string(),
  modalities: z.strictObject({ vision: z.boolean(), audio: z.boolean() }),
  bos_token: z.string(),
  eos_token: z.string(),
  build_info: z.string(),
  is_sleeping: z.boolean(),
});
