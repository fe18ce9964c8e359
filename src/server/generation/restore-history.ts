/**
 * What clients leave out of the history is put back: reasoning, and the bytes of earlier calls. With it the prompt of a turn
 * begins with exactly the tokens of the turn before, and nothing is computed twice.
 */
import { createHash } from "node:crypto";
import type { ChatMessage, ChatRequest, Content, HistoryCall } from "../../chat/chat-request.ts";
import { toolsInForce } from "../../chat/check-request.ts";
import type { PromptPart } from "../../chat/prompt.ts";
import { FormatError } from "../../errors.ts";
import { type Json, JsonNumber, JsonObject, parseJson } from "../../json/parse-json.ts";
import { requestPacer } from "../request-pacer.ts";
import type { AnswerResult } from "./answer-reader.ts";
import type { ChatContext } from "./encode-chat.ts";
import type { PreparedChat } from "./prepare-chat.ts";
import type { RememberedTurn, TurnMemory } from "./turn-memory.ts";

type AssistantMessage = Extract<ChatMessage, { role: "assistant" }>;

/** The request with the assistant's turns as they were generated, where the server remembers them. */
export async function restoreHistory(
  request: ChatRequest,
  memory: TurnMemory,
  namespace: string,
): Promise<ChatRequest> {
  const pacer = requestPacer();
  const messages: ChatMessage[] = [];
  for (const [i, message] of request.messages.entries()) {
    messages.push(await restoreMessage(message, request.messages[i - 1], memory, namespace));
    await pacer.pause();
  }
  return { ...request, messages };
}

async function restoreMessage(
  message: ChatMessage,
  before: ChatMessage | undefined,
  memory: TurnMemory,
  namespace: string,
): Promise<ChatMessage> {
  if (message.role !== "assistant" || message.isPrefix) return message;
  const turn = await memory.get(namespace, turnKey(message.calls[0]?.id, before, message.content));
  return turn === undefined ? message : restoreTurn(message, turn);
}

/** Keeps what the next request may leave out, or cannot say. */
export function rememberAnswer(
  { request, jobs }: PreparedChat,
  result: AnswerResult,
  { namespace, services, memory }: ChatContext,
): void {
  rememberTurn(memory.turns, namespace, request, result);
  const { tokenIds: answerIds, stopString } = result;
  const { tokenIds: promptIds } = jobs[0]!; // choices share their prompt
  memory.tokens.remember(namespace, { promptIds, answerIds, stopString }, services.tokenizer);
}

function rememberTurn(memory: TurnMemory, namespace: string, request: ChatRequest, result: AnswerResult): void {
  const { writtenReasoning: reasoning, content, calls, verbatim } = result;
  // Where reasoning is no part of later prompts, they differ from what was computed before the content begins.
  const isReplayed = !request.thinking || request.keepsReasoning || toolsInForce(request).length > 0;
  const isTold = reasoning === "" && (verbatim === undefined || textOf(verbatim) === content);
  if (calls.length === 0 && (isTold || !isReplayed)) return;
  const turn: RememberedTurn = { reasoning, content, calls, ...(verbatim === undefined ? {} : { verbatim }) };
  for (const { id } of calls) memory.put(namespace, callKey(id), turn);
  if (calls.length === 0) {
    const answered = request.messages.at(-1);
    memory.put(namespace, turnKey(undefined, answered, [{ type: "text", text: content }]), turn);
  }
}

function callKey(id: string): string {
  return `call:${id}`;
}

/** A turn with calls is known by the id of its first; another by what it said and what it answered. */
function turnKey(callId: string | undefined, before: ChatMessage | undefined, content: Content | undefined): string {
  if (callId !== undefined) return callKey(callId);
  const texts = [joined(before?.content ?? []), joined(content ?? [])];
  return `turn:${digest(JSON.stringify(texts))}`;
}

function restoreTurn(message: AssistantMessage, turn: RememberedTurn): AssistantMessage {
  const restored: AssistantMessage = {
    ...message,
    // Some clients lose pieces of a streamed reasoning; what is none of ours was changed on purpose.
    reasoning: turn.reasoning.includes(message.reasoning) ? turn.reasoning : message.reasoning,
    calls: message.calls.map((call) => restoreCall(call, turn)),
  };
  const isWhole =
    turn.calls.length === message.calls.length && turn.calls.every((call, i) => isSame(call, restored.calls[i]!));
  const saysTheSame = joined(message.content ?? []).trim() === turn.content.trim();
  return isWhole && saysTheSame && turn.verbatim !== undefined ? { ...restored, verbatim: turn.verbatim } : restored;
}

/** The arguments as they were generated, unless the client changed more than their spelling. */
function restoreCall(call: HistoryCall, turn: RememberedTurn): HistoryCall {
  const known = turn.calls.find(({ id }) => id === call.id);
  if (known === undefined || known.name !== call.name || !isSameJson(known.arguments, call.arguments)) return call;
  return { ...call, arguments: known.arguments };
}

function isSame(a: HistoryCall, b: HistoryCall): boolean {
  return a.id === b.id && a.name === b.name && a.arguments === b.arguments;
}

function isSameJson(a: string, b: string): boolean {
  if (a === b) return true;
  try {
    return canonical(parseJson(a)) === canonical(parseJson(b));
  } catch (error) {
    if (error instanceof FormatError) return false;
    throw error;
  }
}

/** A spelling that is the same for the same value: sorted keys, numbers as doubles. */
function canonical(value: Json): string {
  if (value instanceof JsonNumber) return String(value.value);
  if (value instanceof JsonObject) {
    const entries = [...new Map(value.entries)].map(([key, item]) => `${JSON.stringify(key)}:${canonical(item)}`);
    return `{${entries.sort().join(",")}}`;
  }
  if (Array.isArray(value)) return `[${(value as readonly Json[]).map(canonical).join(",")}]`;
  return JSON.stringify(value);
}

function textOf(parts: readonly PromptPart[]): string {
  return parts.map((part) => ("text" in part ? part.text : part.special)).join("");
}

function digest(text: string): string {
  return createHash("sha256").update(text).digest("base64url");
}

/** What a content says, to be compared with others: the same words about another image are something else. */
function joined(content: Content): string {
  return content.map((part) => (part.type === "text" ? part.text : `[image ${digest(part.url)}]`)).join("\n\n");
}
