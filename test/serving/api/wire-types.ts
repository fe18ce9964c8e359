/**
 * What we send is what the official libraries say they read: tsc fails here when a schema of ours (which every answer in the
 * tests is checked against) is no longer a case of the library's own type, or when a library knows a parameter that our table
 * does not.
 */
import type Anthropic from "@anthropic-ai/sdk";
import type AnthropicOld from "anthropic-sdk-0";
import type OpenAI from "openai";
import type OpenAIOld from "openai-6";
import type { chatParameters } from "../../../src/server/api/chat/chat-parameters.ts";
import type { completionParameters } from "../../../src/server/api/completions/completions.ts";
import type { messagesParameters } from "../../../src/server/api/messages/messages-parameters.ts";
import type { responsesParameters } from "../../../src/server/api/responses/responses-parameters.ts";
import type { ChatChunk, ChatCompletion } from "../../../src/server/api/schemas/chat.ts";
import type { Completion, CompletionChunk } from "../../../src/server/api/schemas/completions.ts";
import type { Message, MessagesEvent } from "../../../src/server/api/schemas/messages.ts";
import type { AnthropicModel, OpenAiModel } from "../../../src/server/api/schemas/models.ts";
import type { ResponseObject, ResponsesEvent } from "../../../src/server/api/schemas/responses.ts";

/** Compiles where every value of the first type is one of the second. */
type IsA<Ours extends Theirs, Theirs> = Ours;
/** Compiles where the table has each parameter that the library knows. */
type Covers<Known extends keyof Table, Table> = Known;

/** As JSON has it: what is undefined is absent. */
type Sent<T> = T extends readonly (infer Item)[]
  ? Sent<Item>[]
  : T extends object
    ? { [K in keyof T]: Sent<Exclude<T[K], undefined>> }
    : T;

type Event = Exclude<Sent<MessagesEvent>, { type: "ping" | "error" }>;

/**
 * Fields of a response that the types cannot hold: four are what the client sent; OpenAI's own server sends some fields as
 * null, which the types of one major or the other leave out; `access_programs` is new in the types, and nothing here has any.
 */
type Loose =
  | "tools"
  | "tool_choice"
  | "reasoning"
  | "text"
  | "usage"
  | "user"
  | "prompt_cache_key"
  | "safety_identifier"
  | "access_programs";
type Tight<T> = T extends { response: infer R } ? Omit<T, "response"> & { response: Omit<R, Loose> } : T;
/** A prompt's first token has no log probability: OpenAI's server sends null, its types say number. */
type ScoredChoice = Omit<Completion["choices"][number], "logprobs">;

export type Checked = [
  IsA<Sent<ChatCompletion>, OpenAI.ChatCompletion>,
  IsA<Sent<ChatCompletion>, OpenAIOld.ChatCompletion>,
  IsA<Sent<ChatChunk>, OpenAI.ChatCompletionChunk>,
  IsA<Sent<ChatChunk>, OpenAIOld.ChatCompletionChunk>,
  IsA<Sent<Omit<Completion, "choices">>, Omit<OpenAI.Completion, "choices">>,
  IsA<Sent<ScoredChoice>, Omit<OpenAI.CompletionChoice, "logprobs">>,
  IsA<Sent<Omit<CompletionChunk, "choices" | "usage">>, Omit<OpenAI.Completion, "choices" | "usage">>,
  IsA<Sent<Omit<ResponseObject, Loose>>, Omit<OpenAI.Responses.Response, Loose>>,
  IsA<Sent<Omit<ResponseObject, Loose>>, Omit<OpenAIOld.Responses.Response, Loose>>,
  IsA<Sent<NonNullable<ResponseObject["usage"]>>, OpenAI.Responses.ResponseUsage>,
  IsA<Tight<Sent<ResponsesEvent>>, Tight<OpenAI.Responses.ResponseStreamEvent>>,
  IsA<OpenAiModel, OpenAI.Model>,
  IsA<Sent<Message>, Anthropic.Message>,
  IsA<Sent<Message>, AnthropicOld.Message>,
  IsA<Event, Anthropic.RawMessageStreamEvent>,
  IsA<AnthropicModel["type"], Anthropic.ModelInfo["type"]>,
  Covers<keyof OpenAI.ChatCompletionCreateParams, typeof chatParameters>,
  Covers<keyof OpenAI.CompletionCreateParams, typeof completionParameters>,
  Covers<keyof OpenAI.Responses.ResponseCreateParams, typeof responsesParameters>,
  Covers<keyof Anthropic.Beta.MessageCreateParams, typeof messagesParameters>,
];
