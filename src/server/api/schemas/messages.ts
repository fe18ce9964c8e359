/** Messages as Anthropic describes them: requests, answers and the events of a stream. */
import { z } from "zod";

const block = z.looseObject({ type: z.string() });
const content = z.union([z.string(), z.array(block)]);

export const messagesRequest = z.looseObject({
  model: z.string().optional(),
  max_tokens: z.int().min(1).optional(),
  messages: z
    .array(z.looseObject({ role: z.enum(["user", "assistant", "system"]), content: content.nullish() }))
    .min(1),
  system: content.optional(),
  tools: z.array(z.looseObject({ name: z.string().optional(), type: z.string().nullish() })).optional(),
  tool_choice: z
    .looseObject({
      type: z.enum(["auto", "any", "tool", "none"]),
      name: z.string().optional(),
      disable_parallel_tool_use: z.boolean().nullish(),
    })
    .optional(),
  thinking: z.looseObject({ type: z.string(), budget_tokens: z.int().nullish() }).optional(),
  output_config: z.looseObject({ effort: z.string().nullish(), format: z.unknown().optional() }).optional(),
  stop_sequences: z.array(z.string()).optional(),
  stream: z.boolean().optional(),
  temperature: z.number().min(0).max(1).optional(),
  top_p: z.number().min(0).max(1).optional(),
  top_k: z.int().min(0).optional(),
});
export type MessagesBody = z.infer<typeof messagesRequest>;

export const messagesUsage = z.strictObject({
  input_tokens: z.int(),
  output_tokens: z.int(),
  cache_creation_input_tokens: z.int(),
  cache_read_input_tokens: z.int(),
  cache_creation: z.null(),
  inference_geo: z.null(),
  output_tokens_details: z.null(),
  server_tool_use: z.null(),
  service_tier: z.literal("standard"),
  speed: z.null(),
});

const textBlock = z.strictObject({ type: z.literal("text"), text: z.string(), citations: z.null() });
const thinkingBlock = z.strictObject({ type: z.literal("thinking"), thinking: z.string(), signature: z.string() });
const toolUseBlock = z.strictObject({
  type: z.literal("tool_use"),
  id: z.string(),
  name: z.string(),
  input: z.record(z.string(), z.unknown()),
  caller: z.strictObject({ type: z.literal("direct") }),
});
export const answerBlock = z.discriminatedUnion("type", [textBlock, thinkingBlock, toolUseBlock]);
export type AnswerBlock = z.infer<typeof answerBlock>;

const stopReason = z.enum(["end_turn", "max_tokens", "stop_sequence", "tool_use"]);
export type StopReason = z.infer<typeof stopReason>;

const messageHead = {
  id: z.string(),
  type: z.literal("message"),
  role: z.literal("assistant"),
  model: z.string(),
  container: z.null(),
  diagnostics: z.null(),
  stop_details: z.null(),
  stop_sequence: z.string().nullable(),
};

export const message = z.strictObject({
  ...messageHead,
  content: z.array(answerBlock),
  stop_reason: stopReason.nullable(),
  usage: messagesUsage,
});
export type Message = z.infer<typeof message>;

const deltaUsage = messagesUsage.omit({
  cache_creation: true,
  inference_geo: true,
  service_tier: true,
  speed: true,
});
const blockDelta = z.discriminatedUnion("type", [
  z.strictObject({ type: z.literal("text_delta"), text: z.string() }),
  z.strictObject({ type: z.literal("thinking_delta"), thinking: z.string() }),
  z.strictObject({ type: z.literal("signature_delta"), signature: z.string() }),
  z.strictObject({ type: z.literal("input_json_delta"), partial_json: z.string() }),
]);

export const messagesEvent = z.discriminatedUnion("type", [
  z.strictObject({ type: z.literal("message_start"), message }),
  z.strictObject({ type: z.literal("content_block_start"), index: z.int(), content_block: answerBlock }),
  z.strictObject({ type: z.literal("content_block_delta"), index: z.int(), delta: blockDelta }),
  z.strictObject({ type: z.literal("content_block_stop"), index: z.int() }),
  z.strictObject({
    type: z.literal("message_delta"),
    delta: z.strictObject({
      stop_reason: stopReason,
      stop_sequence: z.string().nullable(),
      stop_details: z.null(),
      container: z.null(),
    }),
    usage: deltaUsage,
  }),
  z.strictObject({ type: z.literal("message_stop") }),
  z.strictObject({ type: z.literal("ping") }),
  z.strictObject({
    type: z.literal("error"),
    error: z.strictObject({ type: z.string(), message: z.string() }),
  }),
]);
export type MessagesEvent = z.infer<typeof messagesEvent>;

export const tokenCount = z.strictObject({ input_tokens: z.int() });

export const anthropicError = z.looseObject({
  type: z.literal("error"),
  error: z.looseObject({ type: z.string(), message: z.string() }),
});
