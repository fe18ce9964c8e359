/** What editors' plug-ins and test suites use of llama-server's own API. */
import { z } from "zod";

const prompt = z.union([z.string(), z.array(z.union([z.string(), z.int().min(0)])).min(1)]);

const sampling = {
  n_predict: z
    .int()
    .min(-2)
    .optional()
    .meta({ description: "tokens at most; -1 and -2: as many as the context has left" }),
  temperature: z.number().min(0).max(100).optional(),
  top_k: z.int().min(0).optional(),
  top_p: z.number().min(0).max(1).optional(),
  min_p: z.number().min(0).max(1).optional(),
  repeat_penalty: z.number().min(0.01).max(100).optional(),
  presence_penalty: z.number().min(-2).max(2).optional(),
  frequency_penalty: z.number().min(-2).max(2).optional(),
  seed: z.int().min(-1).optional().meta({ description: "a whole number; -1 draws one" }),
  stop: z.union([z.string(), z.array(z.string())]).optional(),
  stream: z.boolean().optional(),
  ignore_eos: z.boolean().optional(),
};

export const llamaCompletionRequest = z.looseObject({ prompt, ...sampling });
export const infillRequest = z.looseObject({
  input_prefix: z.string().optional(),
  input_suffix: z.string().optional(),
  input_extra: z.array(z.looseObject({ filename: z.string().optional(), text: z.string() })).optional(),
  prompt: z.string().optional().meta({ description: "the beginning of what stands in the gap" }),
  ...sampling,
});
export type LlamaSampling = z.infer<z.ZodObject<typeof sampling>>;
export type InfillBody = z.infer<typeof infillRequest>;
export type LlamaPrompt = z.infer<typeof prompt>;

const counts = { tokens_predicted: z.int(), tokens_evaluated: z.int() };
const part = { index: z.literal(0), id_slot: z.literal(0), content: z.string(), tokens: z.tuple([]) };

export const llamaPart = z.strictObject({ ...part, stop: z.literal(false), ...counts });
export const llamaCompletion = z.strictObject({
  ...part,
  stop: z.literal(true),
  model: z.string(),
  ...counts,
  tokens_cached: z.int(),
  truncated: z.literal(false),
  stop_type: z.enum(["eos", "limit", "word"]),
  stopping_word: z.string(),
});
export type LlamaCompletion = z.infer<typeof llamaCompletion>;
export const llamaEvent = z.discriminatedUnion("stop", [llamaPart, llamaCompletion]);
export type LlamaEvent = z.infer<typeof llamaEvent>;

export const props = z.strictObject({
  default_generation_settings: z.strictObject({ n_ctx: z.int() }),
  total_slots: z.literal(1),
  model_alias: z.string(),
  model_path: z.string(),
  chat_template: z.string(),
  modalities: z.strictObject({ vision: z.literal(false), audio: z.literal(false) }),
  build_info: z.string(),
});
