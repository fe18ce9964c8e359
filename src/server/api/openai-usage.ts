/** Usage as OpenAI and DeepSeek tell it, both at once. */
import type { z } from "zod";
import type { AnswerUsage } from "../generation/run-answers.ts";
import type { chatUsage } from "./schemas/chat.ts";

export function openAiUsage(usage: AnswerUsage): z.infer<typeof chatUsage> {
  const { promptTokens, cachedTokens, generatedTokens, reasoningTokens } = usage;
  return {
    prompt_tokens: promptTokens,
    completion_tokens: generatedTokens,
    total_tokens: promptTokens + generatedTokens,
    prompt_cache_hit_tokens: cachedTokens,
    prompt_cache_miss_tokens: promptTokens - cachedTokens,
    prompt_tokens_details: { cached_tokens: cachedTokens },
    completion_tokens_details: { reasoning_tokens: reasoningTokens },
  };
}
