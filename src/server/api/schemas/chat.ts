/** Chat Completions as OpenAI and DeepSeek describe them: requests, answers and chunks. */
import { z } from "zod";

const contentPart = z
  .looseObject({ type: z.string() })
  .meta({ description: "text, or image_url with a base64 data: URL" });
const content = z.union([z.string(), z.array(contentPart)]).nullish();
const historyCall = z.looseObject({
  id: z.string(),
  type: z.string().optional(),
  function: z.looseObject({ name: z.string(), arguments: z.string().nullish() }).optional(),
});
export const chatMessage = z.looseObject({
  role: z.string(),
  content,
  reasoning_content: z.string().nullish(),
  tool_calls: z.array(historyCall).nullish(),
  tool_call_id: z.string().nullish(),
  prefix: z.boolean().nullish(),
});
const tool = z.looseObject({ type: z.string().optional() });
const toolChoice = z.union([z.enum(["none", "auto", "required"]), z.looseObject({ type: z.string().optional() })]);
const probability = z.number().min(0).max(1);

/** What sampling understands, in chat and in completions. */
export const samplingFields = {
  temperature: z.number().min(0).max(2).optional(),
  top_p: probability.optional(),
  top_k: z.int().min(-1).optional(),
  min_p: probability.optional(),
  presence_penalty: z.number().min(-2).max(2).optional(),
  frequency_penalty: z.number().min(-2).max(2).optional(),
  repetition_penalty: z.number().min(0.01).max(100).optional(),
  logit_bias: z.record(z.string().regex(/^\d+$/, "a token id is expected"), z.number().min(-100).max(100)).optional(),
  seed: z.int().optional(),
};

export const streamOptions = z.looseObject({ include_usage: z.boolean().nullish() });

export const chatRequest = z.looseObject({
  model: z.string().optional(),
  messages: z.array(chatMessage).min(1),
  tools: z.array(tool).optional(),
  tool_choice: toolChoice.optional(),
  parallel_tool_calls: z.boolean().optional(),
  stream: z.boolean().optional(),
  stream_options: streamOptions.optional(),
  max_tokens: z.int().min(1).optional(),
  max_completion_tokens: z.int().min(1).optional(),
  n: z.int().min(1).max(32).optional(),
  stop: z.union([z.string(), z.array(z.string())]).optional(),
  logprobs: z.boolean().optional(),
  top_logprobs: z.int().min(0).max(20).optional(),
  response_format: z.looseObject({ type: z.string() }).optional(),
  thinking: z.union([z.boolean(), z.looseObject({ type: z.string() })]).optional(),
  enable_thinking: z.boolean().optional(),
  chat_template_kwargs: z
    .looseObject({ enable_thinking: z.boolean().nullish(), thinking: z.boolean().nullish() })
    .optional(),
  reasoning_effort: z.union([z.string(), z.int()]).optional(),
  ignore_eos: z.boolean().optional(),
  continue_final_message: z
    .boolean()
    .optional()
    .meta({ description: "Go on with the last message, an assistant's (vLLM; as DeepSeek's prefix)" }),
  add_generation_prompt: z.boolean().optional(),
  verbose: z.boolean().optional().meta({ description: "The answer tells its prompt in __verbose (llama-server)" }),
  timings_per_token: z
    .boolean()
    .optional()
    .meta({ description: "The last chunk of a stream tells times (llama-server)" }),
  return_progress: z.boolean().optional().meta({ description: "A stream tells how far the prompt is (llama-server)" }),
  ...samplingFields,
});
export type ChatBody = z.infer<typeof chatRequest>;

const tokenLogprob = z.strictObject({ token: z.string(), logprob: z.number(), bytes: z.array(z.int()).nullable() });
export const chatTokenLogprob = z.strictObject({ ...tokenLogprob.shape, top_logprobs: z.array(tokenLogprob) });
const choiceLogprobs = z
  .strictObject({
    content: z.array(chatTokenLogprob).nullable(),
    refusal: z.null(),
    reasoning_content: z.array(chatTokenLogprob).nullable().optional(),
  })
  .nullable();

export const chatUsage = z.strictObject({
  prompt_tokens: z.int(),
  completion_tokens: z.int(),
  total_tokens: z.int(),
  prompt_cache_hit_tokens: z.int(),
  prompt_cache_miss_tokens: z.int(),
  prompt_tokens_details: z.strictObject({ cached_tokens: z.int() }),
  completion_tokens_details: z.strictObject({ reasoning_tokens: z.int() }),
});

const finishReason = z.enum(["stop", "length", "tool_calls", "content_filter"]);
const answerCall = z.strictObject({
  id: z.string(),
  type: z.literal("function"),
  function: z.strictObject({ name: z.string(), arguments: z.string() }),
});

const answerHead = { id: z.string(), created: z.int(), model: z.string(), system_fingerprint: z.string() };

export const chatCompletion = z.strictObject({
  ...answerHead,
  object: z.literal("chat.completion"),
  choices: z.array(
    z.strictObject({
      index: z.int(),
      message: z.strictObject({
        role: z.literal("assistant"),
        content: z.string().nullable(),
        refusal: z.null(),
        reasoning_content: z.string().optional(),
        tool_calls: z.array(answerCall).optional(),
      }),
      logprobs: choiceLogprobs,
      finish_reason: finishReason,
    }),
  ),
  usage: chatUsage,
  __verbose: z.strictObject({ prompt: z.string() }).optional(),
});
export type ChatCompletion = z.infer<typeof chatCompletion>;

export const chatChunk = z.strictObject({
  ...answerHead,
  object: z.literal("chat.completion.chunk"),
  choices: z.array(
    z.strictObject({
      index: z.int(),
      delta: z.strictObject({
        role: z.literal("assistant").optional(),
        content: z.string().nullable().optional(),
        reasoning_content: z.string().optional(),
        tool_calls: z
          .array(
            z.strictObject({
              index: z.int(),
              id: z.string().optional(),
              type: z.literal("function").optional(),
              function: z.strictObject({ name: z.string().optional(), arguments: z.string().optional() }),
            }),
          )
          .optional(),
      }),
      logprobs: choiceLogprobs,
      finish_reason: finishReason.nullable(),
    }),
  ),
  usage: chatUsage.nullable().optional(),
  timings: z.record(z.string(), z.number()).optional(),
  prompt_progress: z
    .strictObject({ total: z.int(), cache: z.int(), processed: z.int(), time_ms: z.number() })
    .optional(),
});
export type ChatChunk = z.infer<typeof chatChunk>;

export const openAiError = z.strictObject({
  error: z.looseObject({
    message: z.string(),
    type: z.string(),
    param: z.string().nullable(),
    code: z.string().nullable(),
  }),
});
