/**
 * A chat request as APIs carry it (`{messages, tools, thinking, ...}`), read into types and checked. What DeepSeek's API
 * refuses with status 400 is refused here, with a RequestError that names the place.
 */
import { quoted, RequestError } from "../errors.ts";
import { finishSteps } from "../finish-steps.ts";
import { type Json, JsonNumber } from "../json/parse-json.ts";
import { checkRequest } from "./check-request.ts";
import { type DialectName, type Effort, taskTokens } from "./dialect.ts";
import type { PromptPart } from "./prompt.ts";
import { Fields, toJson, wrong } from "./read-json.ts";

export interface ChatRequest {
  readonly messages: readonly ChatMessage[];
  readonly tools: readonly Tool[];
  readonly thinking: boolean;
  readonly effort: Effort;
  readonly toolChoice: ToolChoice;
  readonly responseFormat: ResponseFormat;
  readonly stop: readonly string[];
  /** Keep the reasoning of every turn, also without tools. */
  readonly keepsReasoning: boolean;
  /** The prompt format that the request asks for, where it does. */
  readonly version: DialectName | undefined;
}

export type ChatMessage =
  | { readonly role: "system"; readonly content: Content; readonly tools: readonly Tool[] }
  | { readonly role: "user"; readonly content: Content; readonly task: string | undefined }
  | { readonly role: "latest_reminder"; readonly content: Content }
  | { readonly role: "tool"; readonly content: Content; readonly callId: string }
  | {
      readonly role: "assistant";
      /** Undefined where the message has none (null or absent). */
      readonly content: Content | undefined;
      readonly reasoning: string;
      readonly calls: readonly HistoryCall[];
      readonly isPrefix: boolean;
      /** What the model wrote behind its reasoning, to the byte, where that is known: rendered in place of content and calls. */
      readonly verbatim?: readonly PromptPart[];
    };

export type ContentPart =
  | { readonly type: "text"; readonly text: string }
  | { readonly type: "image"; readonly url: string };
export type Content = readonly ContentPart[];

export interface HistoryCall {
  readonly id: string;
  readonly name: string;
  /** JSON text, as the model wrote it. */
  readonly arguments: string;
}

export interface Tool {
  readonly name: string;
  readonly description: string;
  readonly parameters: Json;
  /** Whether the request gave parameters: an empty schema is refused, an absent one is not. */
  readonly hasParameters: boolean;
  readonly strict: boolean;
  /** The namespace that the tool was listed in, and its description. */
  readonly namespace: { readonly name: string; readonly description: string } | undefined;
}

export type ToolChoice = "none" | "auto" | "required" | { readonly name: string };

export type ResponseFormat =
  | { readonly type: "text" | "json_object" }
  | { readonly type: "json_schema"; readonly schema: Json };

const maxMessages = 100_000;
const maxTools = 4096;

/**
 * Reads a request from JSON (as parseJson gives it, so that nothing of it is lost) or from a plain value. Options may stand
 * beside the messages or in `options`. A request with `thinking_mode` is a bare conversation and is not checked further.
 */
export function parseChatRequest(input: unknown): ChatRequest {
  return finishSteps(parseChatRequestInSteps(input));
}

/** Messages that are read, checked or rendered in one step: a millisecond or two. */
export const messagesAtOnce = 256;

/** The same in steps of some messages each. */
export function* parseChatRequestInSteps(input: unknown): Generator<undefined, ChatRequest> {
  const root = new Fields(toJson(input, "request"), "");
  const options = root.fields("options") ?? root;
  const option = <T>(read: (fields: Fields) => T | undefined): T | undefined => read(options) ?? read(root);
  const mode = option((fields) => fields.boolean("thinking_mode"));
  const isBare = mode !== undefined;
  const list = root.required("messages", root.list("messages"));
  if (list.length > maxMessages)
    throw new RequestError(`There are more than ${maxMessages} messages`, { code: "request" });
  const messages: ChatMessage[] = [];
  for (const [i, message] of list.entries()) {
    if (i % messagesAtOnce === messagesAtOnce - 1) yield;
    messages.push(readMessage(new Fields(message, `messages[${i}]`), isBare));
  }

  const effortValue = option((fields) => fields.get("reasoning_effort"));
  const request: ChatRequest = {
    messages,
    tools: readTools(root.list("tools") ?? options.list("tools") ?? [], "tools", isBare),
    thinking:
      mode ??
      readThinking(
        option((fields) => fields.get("thinking")),
        effortValue,
      ),
    effort: readEffort(effortValue),
    toolChoice: readToolChoice(option((fields) => fields.get("tool_choice"))),
    responseFormat: readResponseFormat(option((fields) => fields.fields("response_format"))),
    stop: readStop(option((fields) => fields.get("stop"))),
    keepsReasoning: option((fields) => fields.boolean("drop_thinking")) === false,
    version: readVersion(root.string("version")),
  };
  yield;
  if (!isBare) checkRequest(request);
  return request;
}

/** Whether any message of a conversation holds an image, whatever a prompt makes of it. */
export function holdsImages({ messages }: ChatRequest): boolean {
  return messages.some(({ content }) => content?.some((part) => part.type === "image"));
}

function readMessage(fields: Fields, isBare: boolean): ChatMessage {
  const role = fields.required("role", fields.string("role"));
  const content = readContent(fields.get("content"), fields.path("content"));
  switch (role) {
    case "system":
    case "developer":
      return {
        role: "system",
        content: content ?? [],
        tools: readTools(fields.list("tools") ?? [], fields.path("tools"), isBare),
      };
    case "user":
      return { role, content: content ?? [], task: readTask(fields) };
    case "latest_reminder":
      return { role, content: content ?? [] };
    case "tool":
      return { role, content: content ?? [], callId: fields.required("tool_call_id", fields.string("tool_call_id")) };
    case "assistant":
      return {
        role,
        content,
        reasoning: fields.string("reasoning_content") ?? fields.string("reasoning") ?? "",
        calls: (fields.list("tool_calls") ?? []).map((call, i) =>
          readCall(new Fields(call, `${fields.path("tool_calls")}[${i}]`)),
        ),
        isPrefix: fields.boolean("prefix") ?? false,
      };
    default:
      throw new RequestError(`${fields.path("role")} is ${quoted(role)}, which is no role`, {
        code: "request",
        where: fields.path("role"),
        hint: "Roles are system, user, assistant, tool and latest_reminder",
      });
  }
}

function readTask(fields: Fields): string | undefined {
  const task = fields.string("task");
  if (task === undefined || Object.hasOwn(taskTokens, task)) return task;
  throw new RequestError(`${fields.path("task")} is ${quoted(task)}, which is no task`, {
    code: "request",
    where: fields.path("task"),
    hint: `Tasks are ${Object.keys(taskTokens).join(", ")}`,
  });
}

function readContent(value: Json | undefined, where: string): Content | undefined {
  if (value === undefined) return undefined;
  if (typeof value === "string") return [{ type: "text", text: value }];
  if (!Array.isArray(value)) throw wrong(where, value, "a text or a list of parts");
  return (value as readonly Json[]).map((item, i): ContentPart => {
    const part = new Fields(item, `${where}[${i}]`);
    const type = part.required("type", part.string("type"));
    switch (type) {
      case "text":
      case "input_text":
      case "output_text":
        return { type: "text", text: part.required("text", part.string("text")) };
      case "image_url":
      case "input_image": {
        const image = part.get("image_url");
        const url = typeof image === "string" ? image : part.fields("image_url")?.string("url");
        return { type: "image", url: part.required("image_url", url) };
      }
      default:
        throw new RequestError(`${part.path("type")} is ${quoted(type)}, which is no kind of content`, {
          code: "request",
          where: part.path("type"),
          hint: "Parts are of the type text or image_url",
        });
    }
  });
}

function readCall(fields: Fields): HistoryCall {
  const call = fields.fields("function") ?? fields;
  return {
    id: fields.required("id", fields.string("id")),
    name: call.required("name", call.string("name")),
    arguments: call.string("arguments") ?? "",
  };
}

/** Tools as `{type: "function", function: {...}}`, flat, or listed in a namespace. */
function readTools(list: readonly Json[], where: string, isBare: boolean): Tool[] {
  if (list.length > maxTools)
    throw new RequestError(`There are more than ${maxTools} tools`, { code: "request", where });
  return list.flatMap((item, i) => {
    const fields = new Fields(item, `${where}[${i}]`);
    if (fields.string("type") !== "namespace") return [readTool(fields, undefined, isBare)];
    const namespace = {
      name: fields.required("name", fields.string("name")),
      description: fields.string("description") ?? "",
    };
    return (fields.list("tools") ?? []).map((tool, k) =>
      readTool(new Fields(tool, `${fields.path("tools")}[${k}]`), namespace, isBare),
    );
  });
}

function readTool(outer: Fields, namespace: Tool["namespace"], isBare: boolean): Tool {
  const type = outer.string("type") ?? "function";
  if (type !== "function") {
    throw new RequestError(`${outer.path("type")} is ${quoted(type)}; only functions can be called`, {
      code: "request",
      where: outer.path("type"),
    });
  }
  const fields = outer.fields("function") ?? outer;
  return {
    name: fields.required("name", fields.string("name")),
    description: fields.string("description") ?? "",
    parameters: fields.get("parameters") ?? (isBare ? null : toJson({}, "parameters")),
    hasParameters: fields.get("parameters") !== undefined,
    strict: fields.boolean("strict") ?? false,
    namespace,
  };
}

function readThinking(value: Json | undefined, effort: Json | undefined): boolean {
  if (value === undefined) return effort !== "none";
  if (typeof value === "boolean") return value;
  const fields = new Fields(value, "thinking");
  const type = fields.string("type");
  if (type === "disabled") return false;
  if (type === "enabled" || type === "adaptive") return true;
  throw new RequestError(
    `thinking.type is ${type === undefined ? type : quoted(type)}, not enabled, adaptive or disabled`,
    {
      code: "request",
      where: "thinking.type",
    },
  );
}

const effortLevels: Readonly<Record<string, Effort>> = {
  minimal: "low",
  low: "low",
  medium: "high",
  high: "high",
  xhigh: "high",
  max: "max",
  none: "high", // only seen where thinking was asked for all the same
};

function readEffort(value: Json | undefined): Effort {
  if (value === undefined) return "high";
  if (value instanceof JsonNumber && Number.isInteger(value.value) && value.value >= 1 && value.value <= 100)
    return value.value;
  if (typeof value === "string" && Object.hasOwn(effortLevels, value)) return effortLevels[value]!;
  throw wrong(
    "reasoning_effort",
    value,
    `one of ${Object.keys(effortLevels).join(", ")} or a whole number from 1 to 100`,
  );
}

function readToolChoice(value: Json | undefined): ToolChoice {
  if (value === undefined) return "auto";
  if (value === "none" || value === "auto" || value === "required") return value;
  if (typeof value === "string") throw wrong("tool_choice", value, "none, auto, required or a function");
  const fields = new Fields(value, "tool_choice");
  const named = fields.fields("function") ?? fields;
  return { name: named.required("name", named.string("name")) };
}

function readResponseFormat(fields: Fields | undefined): ResponseFormat {
  const type = fields?.string("type") ?? "text";
  switch (type) {
    case "text":
    case "regex": // constrains decoding elsewhere; the prompt says nothing of it
      return { type: "text" };
    case "json_object":
      return { type };
    case "json_schema": {
      const inner = fields!.fields("json_schema") ?? fields!;
      return { type, schema: inner.required("schema", inner.get("schema")) };
    }
    default:
      throw new RequestError(`response_format.type is ${quoted(type)}, which is no format`, {
        code: "request",
        where: "response_format.type",
        hint: "Formats are text, json_object and json_schema",
      });
  }
}

function readStop(value: Json | undefined): string[] {
  if (value === undefined) return [];
  const list = Array.isArray(value) ? (value as readonly Json[]) : [value];
  return list.map((stop, i) => {
    if (typeof stop === "string") return stop;
    throw wrong(`stop[${i}]`, stop, "a string");
  });
}

function readVersion(value: string | undefined): DialectName | undefined {
  if (value === undefined || value === "v4" || value === "v4.1") return value;
  throw wrong("version", value, "v4 or v4.1");
}
