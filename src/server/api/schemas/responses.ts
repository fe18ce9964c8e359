/** Responses as OpenAI describes them: requests, items, answers and the events of a stream. */
import { z } from "zod";

const item = z.looseObject({ type: z.string().nullish(), role: z.string().nullish() });

export const responsesRequest = z.looseObject({
  model: z.string().optional(),
  input: z.union([z.string(), z.array(item)]).optional(),
  instructions: z.string().optional(),
  previous_response_id: z.string().optional(),
  store: z.boolean().optional(),
  stream: z.boolean().optional(),
  tools: z.array(z.looseObject({ type: z.string() })).optional(),
  tool_choice: z.union([z.enum(["none", "auto", "required"]), z.looseObject({ type: z.string() })]).optional(),
  parallel_tool_calls: z.boolean().optional(),
  reasoning: z
    .looseObject({ effort: z.union([z.string(), z.int()]).nullish(), summary: z.string().nullish() })
    .optional(),
  text: z.looseObject({ format: z.looseObject({ type: z.string() }).nullish() }).optional(),
  include: z.array(z.string()).optional(),
  max_output_tokens: z.int().min(1).optional(),
  temperature: z.number().min(0).max(2).optional(),
  top_p: z.number().min(0).max(1).optional(),
  top_logprobs: z.int().min(0).max(20).optional(),
  truncation: z.enum(["auto", "disabled"]).optional(),
  metadata: z.record(z.string(), z.string()).optional(),
  user: z.string().optional(),
  prompt_cache_key: z.string().optional(),
  safety_identifier: z.string().optional(),
  timings_per_token: z.boolean().optional().meta({ description: "Events of text tell times (llama-server)" }),
  return_progress: z.boolean().optional().meta({ description: "A stream tells how far the prompt is (llama-server)" }),
});
export type ResponsesBody = z.infer<typeof responsesRequest>;

const logprob = { token: z.string(), logprob: z.number(), bytes: z.array(z.int()) };
const logprobs = z.array(z.strictObject({ ...logprob, top_logprobs: z.array(z.strictObject(logprob)) }));
export type ResponseLogprobs = z.infer<typeof logprobs>;

const status = z.enum(["in_progress", "completed", "incomplete"]);
const outputText = z.strictObject({
  type: z.literal("output_text"),
  text: z.string(),
  annotations: z.tuple([]),
  logprobs,
});
const reasoningText = z.strictObject({ type: z.literal("reasoning_text"), text: z.string() });
const summaryText = z.strictObject({ type: z.literal("summary_text"), text: z.string() });

const messageItem = z.strictObject({
  type: z.literal("message"),
  id: z.string(),
  status,
  role: z.literal("assistant"),
  content: z.array(outputText),
});
const reasoningItem = z.strictObject({
  type: z.literal("reasoning"),
  id: z.string(),
  status,
  summary: z.array(summaryText),
  content: z.array(reasoningText),
  encrypted_content: z.string().nullable(),
});
const functionItem = z.strictObject({
  type: z.literal("function_call"),
  id: z.string(),
  status,
  call_id: z.string(),
  name: z.string(),
  namespace: z.string().optional(),
  arguments: z.string(),
});
const customItem = z.strictObject({
  type: z.literal("custom_tool_call"),
  id: z.string(),
  status,
  call_id: z.string(),
  name: z.string(),
  namespace: z.string().optional(),
  input: z.string(),
});
const outputItem = z.discriminatedUnion("type", [messageItem, reasoningItem, functionItem, customItem]);
export type OutputItem = z.infer<typeof outputItem>;

const usage = z.strictObject({
  input_tokens: z.int(),
  input_tokens_details: z.strictObject({ cached_tokens: z.int(), cache_write_tokens: z.int() }),
  output_tokens: z.int(),
  output_tokens_details: z.strictObject({ reasoning_tokens: z.int() }),
  total_tokens: z.int(),
});

export const responseObject = z.strictObject({
  id: z.string(),
  object: z.literal("response"),
  created_at: z.int(),
  completed_at: z.int().nullable(),
  status: z.enum(["in_progress", "completed", "incomplete", "failed"]),
  background: z.literal(false),
  error: z.strictObject({ code: z.literal("server_error"), message: z.string() }).nullable(),
  incomplete_details: z.strictObject({ reason: z.literal("max_output_tokens") }).nullable(),
  instructions: z.string().nullable(),
  max_output_tokens: z.int().nullable(),
  max_tool_calls: z.null(),
  model: z.string(),
  output: z.array(outputItem),
  output_text: z.string(),
  parallel_tool_calls: z.boolean(),
  previous_response_id: z.string().nullable(),
  prompt_cache_key: z.string().nullable(),
  reasoning: z.looseObject({ effort: z.unknown(), summary: z.unknown() }),
  safety_identifier: z.string().nullable(),
  service_tier: z.literal("default"),
  store: z.boolean(),
  temperature: z.number().nullable(),
  text: z.looseObject({ format: z.looseObject({ type: z.string() }) }),
  tool_choice: z.unknown(),
  tools: z.array(z.unknown()),
  top_logprobs: z.int(),
  top_p: z.number().nullable(),
  truncation: z.enum(["auto", "disabled"]),
  usage: usage.nullable(),
  user: z.string().nullable(),
  metadata: z.record(z.string(), z.string()),
});
export type ResponseObject = z.infer<typeof responseObject>;

const at = { sequence_number: z.int(), output_index: z.int(), item_id: z.string() };
const inContent = { ...at, content_index: z.int() };
const inSummary = { ...at, summary_index: z.int() };
const telemetry = {
  timings: z.record(z.string(), z.number()).optional(),
  prompt_progress: z
    .strictObject({ total: z.int(), cache: z.int(), processed: z.int(), time_ms: z.number() })
    .optional(),
};
const ofResponse = { sequence_number: z.int(), response: responseObject };
const ofItem = { sequence_number: z.int(), output_index: z.int(), item: outputItem };
const contentPart = z.discriminatedUnion("type", [outputText, reasoningText]);
const kind = <T extends string>(type: T) => z.literal(type);

export const responsesEvent = z.discriminatedUnion("type", [
  z.strictObject({ type: kind("response.created"), ...ofResponse }),
  z.strictObject({ type: kind("response.in_progress"), ...ofResponse, ...telemetry }),
  z.strictObject({ type: kind("response.completed"), ...ofResponse, ...telemetry }),
  z.strictObject({ type: kind("response.incomplete"), ...ofResponse, ...telemetry }),
  z.strictObject({ type: kind("response.failed"), ...ofResponse }),
  z.strictObject({ type: kind("response.output_item.added"), ...ofItem }),
  z.strictObject({ type: kind("response.output_item.done"), ...ofItem }),
  z.strictObject({ type: kind("response.content_part.added"), ...inContent, part: contentPart }),
  z.strictObject({ type: kind("response.content_part.done"), ...inContent, part: contentPart }),
  z.strictObject({ type: kind("response.output_text.delta"), ...inContent, delta: z.string(), logprobs, ...telemetry }),
  z.strictObject({ type: kind("response.output_text.done"), ...inContent, text: z.string(), logprobs }),
  z.strictObject({ type: kind("response.reasoning_text.delta"), ...inContent, delta: z.string() }),
  z.strictObject({ type: kind("response.reasoning_text.done"), ...inContent, text: z.string() }),
  z.strictObject({ type: kind("response.reasoning_summary_part.added"), ...inSummary, part: summaryText }),
  z.strictObject({ type: kind("response.reasoning_summary_part.done"), ...inSummary, part: summaryText }),
  z.strictObject({ type: kind("response.reasoning_summary_text.delta"), ...inSummary, delta: z.string() }),
  z.strictObject({ type: kind("response.reasoning_summary_text.done"), ...inSummary, text: z.string() }),
  z.strictObject({ type: kind("response.function_call_arguments.delta"), ...at, delta: z.string() }),
  z.strictObject({
    type: kind("response.function_call_arguments.done"),
    ...at,
    arguments: z.string(),
    name: z.string(),
  }),
  z.strictObject({ type: kind("response.custom_tool_call_input.delta"), ...at, delta: z.string() }),
  z.strictObject({ type: kind("response.custom_tool_call_input.done"), ...at, input: z.string() }),
  z.strictObject({
    type: kind("error"),
    sequence_number: z.int(),
    code: z.string().nullable(),
    message: z.string(),
    param: z.null(),
  }),
]);
export type ResponsesEvent = z.infer<typeof responsesEvent>;

export const responseTokenCount = z.strictObject({
  object: z.literal("response.input_tokens"),
  input_tokens: z.int(),
});
export const responseDeleted = z.strictObject({
  id: z.string(),
  object: z.literal("response"),
  deleted: z.literal(true),
});
export const inputItemList = z.strictObject({
  object: z.literal("list"),
  data: z.array(z.looseObject({ id: z.string() })),
  first_id: z.string().nullable(),
  last_id: z.string().nullable(),
  has_more: z.boolean(),
});
