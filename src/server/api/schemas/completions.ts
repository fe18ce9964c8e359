/** Completions of plain text, as OpenAI's older API and DeepSeek's fill-in-the-middle describe them. */
import { z } from "zod";
import { chatUsage, samplingFields, streamOptions } from "./chat.ts";

const tokenIds = z.array(z.int().min(0)).min(1);
const prompt = z.union([z.string(), tokenIds, z.array(z.string()).min(1), z.array(tokenIds).min(1)]);

export const completionRequest = z.looseObject({
  model: z.string().optional(),
  prompt: prompt.meta({ description: "A text, texts, token ids or lists of them" }),
  suffix: z.string().optional().meta({ description: "The model writes what stands between prompt and suffix" }),
  max_tokens: z.int().min(0).optional(),
  n: z.int().min(1).max(32).optional(),
  best_of: z.int().optional(),
  stream: z.boolean().optional(),
  stream_options: streamOptions.optional(),
  logprobs: z.int().min(0).max(20).optional(),
  echo: z.boolean().optional(),
  stop: z.union([z.string(), z.array(z.string())]).optional(),
  ignore_eos: z.boolean().optional(),
  ...samplingFields,
});
export type CompletionBody = z.infer<typeof completionRequest>;

const legacyLogprobs = z.strictObject({
  tokens: z.array(z.string()),
  token_logprobs: z.array(z.number().nullable()),
  top_logprobs: z.array(z.record(z.string(), z.number()).nullable()).nullable(),
  text_offset: z.array(z.int()),
});
export type LegacyLogprobs = z.infer<typeof legacyLogprobs>;

const finishReason = z.enum(["stop", "length", "content_filter"]);

const choice = { index: z.int(), text: z.string(), logprobs: legacyLogprobs.nullable() };
const head = {
  id: z.string(),
  object: z.literal("text_completion"),
  created: z.int(),
  model: z.string(),
  system_fingerprint: z.string(),
};

export const completion = z.strictObject({
  ...head,
  choices: z.array(z.strictObject({ ...choice, finish_reason: finishReason })),
  usage: chatUsage,
});
export type Completion = z.infer<typeof completion>;

export const completionChunk = z.strictObject({
  ...head,
  choices: z.array(z.strictObject({ ...choice, finish_reason: finishReason.nullable() })),
  usage: chatUsage.nullable().optional(),
});
export type CompletionChunk = z.infer<typeof completionChunk>;
