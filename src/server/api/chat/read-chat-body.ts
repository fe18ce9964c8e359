/** From the body of a Chat Completions request to a conversation and the options of its answer. */
import { type ChatRequest, parseChatRequestInSteps } from "../../../chat/chat-request.ts";
import { RequestError } from "../../../errors.ts";
import { type Json, JsonObject } from "../../../json/parse-json.ts";
import type { AnswerOptions } from "../../generation/prepare-chat.ts";
import { requestPacer } from "../../request-pacer.ts";
import { type RequestBody, refuseUnsupported } from "../request-body.ts";
import { readSampling } from "../sampling-fields.ts";
import type { ChatBody } from "../schemas/chat.ts";
import { chatParameters } from "./chat-parameters.ts";

const conversationFields = ["messages", "tools", "tool_choice", "response_format", "stop", "reasoning_effort"];

/** `thinks`: whether a model thinks where the request says nothing of it. */
export async function readChatBody(
  { value, json }: RequestBody<ChatBody>,
  thinks: boolean,
): Promise<{ chat: ChatRequest; options: AnswerOptions }> {
  refuseUnsupported(json, chatParameters);
  if (value.response_format?.type === "json_schema") {
    throw new RequestError("Answers that follow a schema are not offered yet", {
      code: "unsupported_parameter",
      where: "response_format",
      hint: 'Use {"type": "json_object"} and describe the JSON in the messages, or a tool',
    });
  }
  if (value.top_logprobs !== undefined && !value.logprobs) {
    throw new RequestError("top_logprobs needs logprobs", {
      code: "request",
      where: "top_logprobs",
      hint: 'Add "logprobs": true',
    });
  }
  const picked = json.entries.filter(([key]) => conversationFields.includes(key));
  const conversation = new JsonObject([...picked, ...thinkingEntry(value, json, thinks)]);
  const chat = await requestPacer().finish(parseChatRequestInSteps(conversation));
  return {
    chat: value.continue_final_message ? continued(chat, value) : chat,
    options: {
      sampling: readSampling(value),
      maxTokens: value.max_completion_tokens ?? value.max_tokens,
      choices: value.n ?? 1,
      logprobs: value.logprobs ? (value.top_logprobs ?? 0) : undefined,
      ignoreEos: value.ignore_eos ?? false,
      ...(value.parallel_tool_calls === false ? { maxCalls: 1 } : {}),
    },
  };
}

/** vLLM's and Transformers' word for DeepSeek's `prefix`. */
function continued(chat: ChatRequest, { add_generation_prompt }: ChatBody): ChatRequest {
  const last = chat.messages.at(-1)!;
  if (add_generation_prompt || last.role !== "assistant") {
    throw new RequestError("The last message cannot be continued", {
      code: "request",
      where: "continue_final_message",
      hint: "It must be an assistant's, and add_generation_prompt must not be true",
    });
  }
  return { ...chat, messages: [...chat.messages.slice(0, -1), { ...last, isPrefix: true }] };
}

/**
 * DeepSeek's `thinking`, Qwen's `enable_thinking` or a template's switch. A client that says nothing of thinking and requires
 * a call gets none: DeepSeek refuses the two together, OpenAI's clients cannot know that.
 */
function thinkingEntry(value: ChatBody, json: JsonObject, thinks: boolean): [string, Json][] {
  const named = json.get("thinking");
  if (named !== undefined) return [["thinking", named]];
  const template = value.chat_template_kwargs;
  const asked = value.enable_thinking ?? template?.enable_thinking ?? template?.thinking;
  if (asked !== undefined && asked !== null) return [["thinking", asked]];
  const { tool_choice: choice } = value;
  const requiresCall = choice === "required" || typeof choice === "object";
  return (requiresCall || !thinks) && value.reasoning_effort === undefined ? [["thinking", false]] : [];
}
