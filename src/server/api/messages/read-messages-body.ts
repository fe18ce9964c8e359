/** From the body of a Messages request to a conversation and the options of its answer. */
import type {
  ChatMessage,
  ChatRequest,
  Content,
  ContentPart,
  HistoryCall,
  Tool,
  ToolChoice,
} from "../../../chat/chat-request.ts";
import { checkRequest } from "../../../chat/check-request.ts";
import type { Effort } from "../../../chat/dialect.ts";
import { Fields, wrong } from "../../../chat/read-json.ts";
import { withoutUndefined } from "../../../engine/without-undefined.ts";
import { quoted, RequestError } from "../../../errors.ts";
import { type Json, JsonObject } from "../../../json/parse-json.ts";
import type { AnswerOptions } from "../../generation/prepare-chat.ts";
import { requestPacer } from "../../request-pacer.ts";
import { printCompact } from "../print-compact.ts";
import { type RequestBody, refuseUnsupported } from "../request-body.ts";
import type { MessagesBody } from "../schemas/messages.ts";
import { messagesParameters } from "./messages-parameters.ts";

export async function readMessagesBody({ value, json }: RequestBody<MessagesBody>): Promise<{
  chat: ChatRequest;
  options: AnswerOptions;
}> {
  refuseUnsupported(json, messagesParameters);
  if (value.output_config?.format !== undefined && value.output_config.format !== null) {
    throw new RequestError("Answers that follow a schema are not offered yet", {
      code: "unsupported_parameter",
      where: "output_config.format",
      hint: "Describe the JSON in the messages, or use a tool",
    });
  }
  const fields = new Fields(json, "");
  const system = readContent(fields.get("system"), "system");
  const pacer = requestPacer();
  const messages: ChatMessage[] = [];
  for (const [i, item] of (fields.list("messages") ?? []).entries()) {
    messages.push(...readMessage(new Fields(item, `messages[${i}]`)));
    await pacer.pause();
  }
  const toolChoice = readToolChoice(value.tool_choice);
  const chat: ChatRequest = {
    messages: [
      ...(system.length === 0 ? [] : [{ role: "system", content: system, tools: [] } as const]),
      ...openLast(messages),
    ],
    tools: (fields.list("tools") ?? []).flatMap((item, i) => readTool(new Fields(item, `tools[${i}]`))),
    thinking: readThinking(value, toolChoice),
    effort: readEffort(value),
    toolChoice,
    responseFormat: { type: "text" },
    stop: value.stop_sequences ?? [],
    keepsReasoning: false,
    version: undefined,
  };
  await pacer.pause();
  checkRequest(chat);
  return {
    chat,
    options: {
      sampling: withoutUndefined({ temperature: value.temperature, topP: value.top_p, topK: value.top_k }),
      maxTokens: value.max_tokens,
      ...(value.tool_choice?.disable_parallel_tool_use ? { maxCalls: 1 } : {}),
    },
  };
}

/** A last message of the assistant is the beginning of the answer. */
function openLast(messages: readonly ChatMessage[]): ChatMessage[] {
  return messages.map((message, i) =>
    i === messages.length - 1 && message.role === "assistant" && message.calls.length === 0
      ? { ...message, isPrefix: true }
      : message,
  );
}

function readMessage(fields: Fields): ChatMessage[] {
  const role = fields.required("role", fields.string("role"));
  const blocks = blocksOf(fields.get("content"), fields.path("content"));
  switch (role) {
    case "system":
      return [{ role, content: blocks.flatMap(readPart), tools: [] }];
    case "user":
      return readUserMessage(blocks);
    case "assistant":
      return [readAssistantMessage(blocks)];
    default:
      throw wrong(fields.path("role"), role, "user, assistant or system");
  }
}

/** Results of tools come first: they stand directly behind their calls. */
function readUserMessage(blocks: readonly Fields[]): ChatMessage[] {
  const isResult = (block: Fields) => block.string("type") === "tool_result";
  const results = blocks.filter(isResult).map((block): ChatMessage => {
    const content = readContent(block.get("content"), block.path("content"));
    const isError = block.boolean("is_error") ?? false;
    return {
      role: "tool",
      callId: block.required("tool_use_id", block.string("tool_use_id")),
      // The format has no mark for a failed call: the text says it, where it does not already.
      content: isError && !saysError(content) ? [{ type: "text", text: "Error:" }, ...content] : content,
    };
  });
  const rest = blocks.filter((block) => !isResult(block)).flatMap(readPart);
  return rest.length === 0 && results.length > 0
    ? results
    : [...results, { role: "user", content: rest, task: undefined }];
}

function saysError(content: Content): boolean {
  return content.some((part) => part.type === "text" && /error|fail/i.test(part.text));
}

function readAssistantMessage(blocks: readonly Fields[]): ChatMessage {
  const content: ContentPart[] = [];
  const calls: HistoryCall[] = [];
  let reasoning = "";
  for (const block of blocks) {
    switch (block.string("type")) {
      case "thinking":
        reasoning += block.string("thinking") ?? "";
        break;
      case "redacted_thinking": // of another service: nothing in it can be read
        break;
      case "tool_use":
        calls.push({
          id: block.required("id", block.string("id")),
          name: block.required("name", block.string("name")),
          arguments: printCompact(block.get("input") ?? new JsonObject([])),
        });
        break;
      default:
        content.push(...readPart(block));
    }
  }
  const isEmpty = content.length === 0 && calls.length > 0;
  return { role: "assistant", content: isEmpty ? undefined : content, reasoning, calls, isPrefix: false };
}

function blocksOf(value: Json | undefined, where: string): Fields[] {
  if (value === undefined || value === "") return [];
  if (typeof value === "string") return [textFields(value, where)];
  if (!Array.isArray(value)) throw wrong(where, value, "a text or a list of blocks");
  return (value as readonly Json[]).map((item, i) =>
    typeof item === "string" ? textFields(item, `${where}[${i}]`) : new Fields(item, `${where}[${i}]`),
  );
}

function textFields(text: string, where: string): Fields {
  return new Fields(
    new JsonObject([
      ["type", "text"],
      ["text", text],
    ]),
    where,
  );
}

function readContent(value: Json | undefined, where: string): Content {
  return blocksOf(value, where).flatMap(readPart);
}

/** A block as parts of a prompt. Cache marks, citations and ids say nothing to a model. */
function readPart(block: Fields): ContentPart[] {
  const type = block.required("type", block.string("type"));
  switch (type) {
    case "text": {
      const text = block.required("text", block.string("text"));
      return text === "" ? [] : [{ type: "text", text }];
    }
    case "image":
      return [{ type: "image", url: imageUrl(block) }];
    case "document":
      return [{ type: "text", text: documentText(block) }];
    case "search_result":
      return readContent(block.get("content"), block.path("content")) as ContentPart[];
    case "tool_reference":
      return [{ type: "text", text: block.string("tool_name") ?? "" }];
    default:
      throw new RequestError(`${block.path("type")} is ${quoted(type)}, which this server cannot read`, {
        code: "request",
        where: block.path("type"),
        hint: "Blocks are text, image, thinking, tool_use and tool_result",
      });
  }
}

/** As a data: URL; an address stays what it is, and is refused where images are read. */
function imageUrl(block: Fields): string {
  const source = block.required("source", block.fields("source"));
  const type = source.required("type", source.string("type"));
  if (type === "url") return source.required("url", source.string("url"));
  if (type === "base64") {
    const data = source.required("data", source.string("data"));
    return `data:${source.string("media_type") ?? ""};base64,${data}`;
  }
  throw new RequestError(`${source.path("type")} is ${quoted(type)}: there are no stored files`, {
    code: "request",
    where: source.path("type"),
    hint: "Send the image itself: base64",
  });
}

function documentText(block: Fields): string {
  const source = block.required("source", block.fields("source"));
  if (source.string("type") === "text") return source.required("data", source.string("data"));
  throw new RequestError("Only documents of plain text can be read", { code: "request", where: source.path("type") });
}

/** Tools of the client. Those that Anthropic's own servers run are accepted and not offered to the model. */
function readTool(fields: Fields): Tool[] {
  const type = fields.string("type");
  const schema = fields.get("input_schema");
  if (type !== undefined && type !== "custom" && schema === undefined) return [];
  return [
    {
      name: fields.required("name", fields.string("name")),
      description: fields.string("description") ?? "",
      parameters: schema ?? new JsonObject([]),
      hasParameters: schema !== undefined,
      strict: false,
      namespace: undefined,
    },
  ];
}

function readToolChoice(choice: MessagesBody["tool_choice"]): ToolChoice {
  switch (choice?.type) {
    case undefined:
    case "auto":
      return "auto";
    case "any":
      return "required";
    case "none":
      return "none";
    case "tool":
      if (choice.name !== undefined) return { name: choice.name };
      throw new RequestError("tool_choice.name is missing", { code: "request", where: "tool_choice.name" });
    default:
      return choice!.type satisfies never;
  }
}

/** Off unless asked for, as in Anthropic's API; and off where a call is required, which the two together would refuse. */
function readThinking({ thinking, messages }: MessagesBody, choice: ToolChoice): boolean {
  const isAsked = thinking !== undefined && thinking.type !== "disabled";
  const requiresCall = choice === "required" || typeof choice === "object";
  return isAsked && !requiresCall && messages.at(-1)!.role !== "assistant";
}

/** A small budget asks for little thinking; the level counts more. The budget itself cuts nothing. */
const smallBudget = 8192;

function readEffort({ thinking, output_config }: MessagesBody): Effort {
  const levels: Readonly<Record<string, Effort>> = {
    low: "low",
    medium: "high",
    high: "high",
    xhigh: "high",
    max: "max",
  };
  const level = output_config?.effort ?? undefined;
  if (level !== undefined) {
    if (Object.hasOwn(levels, level)) return levels[level]!;
    throw wrong("output_config.effort", level, `one of ${Object.keys(levels).join(", ")}`);
  }
  return (thinking?.budget_tokens ?? smallBudget) < smallBudget ? "low" : "high";
}
