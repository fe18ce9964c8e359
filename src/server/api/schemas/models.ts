/** Lists of models, in the shapes of OpenAI and Anthropic. */
import { z } from "zod";

export const openAiModel = z.strictObject({
  id: z.string(),
  object: z.literal("model"),
  created: z.int(),
  owned_by: z.string(),
  /** As the open servers and gateways spell it, so that agents know how much they may send. */
  context_window: z.int(),
  context_length: z.int(),
  max_model_len: z.int(),
  max_output_tokens: z.int(),
  input_modalities: z.array(z.string()),
  output_modalities: z.array(z.string()),
});
export type OpenAiModel = z.infer<typeof openAiModel>;
export const openAiModelList = z.strictObject({ object: z.literal("list"), data: z.array(openAiModel) });

export const anthropicModel = z.strictObject({
  id: z.string(),
  type: z.literal("model"),
  display_name: z.string(),
  created_at: z.string(),
  max_input_tokens: z.int(),
  max_tokens: z.int(),
});
export type AnthropicModel = z.infer<typeof anthropicModel>;
export const anthropicModelList = z.strictObject({
  data: z.array(anthropicModel),
  has_more: z.boolean(),
  first_id: z.string().nullable(),
  last_id: z.string().nullable(),
});
