/** From the body of a Responses request to a conversation, the options of its answer, and what the response says of them. */
import type { ChatRequest, ResponseFormat, ToolChoice } from "../../../chat/chat-request.ts";
import { checkRequest } from "../../../chat/check-request.ts";
import { type Dialect, dialects, type Effort } from "../../../chat/dialect.ts";
import { Fields, wrong } from "../../../chat/read-json.ts";
import { withoutUndefined } from "../../../engine/without-undefined.ts";
import { quoted, RequestError } from "../../../errors.ts";
import { type Json, JsonObject } from "../../../json/parse-json.ts";
import type { AnswerOptions } from "../../generation/prepare-chat.ts";
import { requestPacer } from "../../request-pacer.ts";
import type { Services } from "../../route.ts";
import { type RequestBody, refuseUnsupported } from "../request-body.ts";
import type { ResponsesBody } from "../schemas/responses.ts";
import { foldItems } from "./fold-items.ts";
import { type ResponseTool, readResponseTools, toolsByName } from "./response-tools.ts";
import { responsesParameters } from "./responses-parameters.ts";

export interface ReadResponses {
  readonly chat: ChatRequest;
  readonly options: AnswerOptions;
  readonly tools: ReadonlyMap<string, ResponseTool>;
  /** The items of this request, without what came before. */
  readonly input: readonly Json[];
}

/** What is kept of earlier answers. */
export interface EarlierItems {
  /** The items that the previous response stands for. */
  readonly history: readonly Json[];
  item(id: string): Json | undefined;
}

/** `thinks`: whether a model thinks where nothing is said of it. */
export async function readResponsesBody(
  { value, json }: RequestBody<ResponsesBody>,
  earlier: EarlierItems,
  { dialect: dialectName }: Pick<Services, "dialect">,
  thinks: boolean,
): Promise<ReadResponses> {
  refuseUnsupported(json, responsesParameters);
  const dialect = dialects[dialectName];
  const fields = new Fields(json, "");
  const pacer = requestPacer();
  const input: Json[] = [];
  for (const [i, item] of inputItems(json.get("input")).entries()) {
    input.push(resolveReference(item, `input[${i}]`, earlier));
    await pacer.pause();
  }
  if (input.length + earlier.history.length === 0)
    throw new RequestError("There is no input", { code: "request", where: "input" });
  const tools = readResponseTools(fields.list("tools") ?? []);
  const toolChoice = readToolChoice(value.tool_choice, tools, dialect);
  const { instructions } = value;
  const system = instructions
    ? [{ role: "system", content: [{ type: "text", text: instructions }], tools: [] } as const]
    : [];
  const conversation = await foldItems([...earlier.history, ...input], dialect, pacer);
  const chat: ChatRequest = {
    messages: [...system, ...conversation],
    tools,
    thinking: readThinking(value, toolChoice, thinks),
    effort: readEffort(value),
    toolChoice,
    responseFormat: readFormat(value),
    stop: [],
    keepsReasoning: false,
    version: undefined,
  };
  await pacer.pause();
  checkRequest(chat);
  const wantsLogprobs = value.top_logprobs !== undefined || value.include?.includes("message.output_text.logprobs");
  return {
    chat,
    tools: toolsByName(tools, dialect),
    input,
    options: {
      sampling: withoutUndefined({ temperature: value.temperature, topP: value.top_p }),
      maxTokens: value.max_output_tokens,
      logprobs: wantsLogprobs ? (value.top_logprobs ?? 0) : undefined,
      ...(value.parallel_tool_calls === false ? { maxCalls: 1 } : {}),
    },
  };
}

function inputItems(input: Json | undefined): readonly Json[] {
  if (input === undefined) return [];
  if (typeof input !== "string") return input as readonly Json[]; // the schema has said: a list
  const message: [string, Json][] = [
    ["type", "message"],
    ["role", "user"],
    ["content", input],
  ];
  return [new JsonObject(message)];
}

/** Some clients send back only the ids of items that they take to be kept. */
function resolveReference(item: Json, where: string, earlier: EarlierItems): Json {
  const fields = new Fields(item, where);
  if (fields.string("type") !== "item_reference") return item;
  const id = fields.required("id", fields.string("id"));
  const found = earlier.item(id);
  if (found !== undefined) return found;
  throw new RequestError(`Item with id ${JSON.stringify(id.slice(0, 80))} not found`, {
    code: "item_not_found",
    where: fields.path("id"),
    hint: "Items are kept in memory for a while, unless store is false; send the item itself",
  });
}

function readToolChoice(
  choice: ResponsesBody["tool_choice"],
  tools: readonly ResponseTool[],
  dialect: Dialect,
): ToolChoice {
  if (choice === undefined) return "auto";
  if (typeof choice === "string") return choice;
  const isNamed = choice.type === "function" || choice.type === "custom";
  if (isNamed && typeof choice.name === "string") {
    const tool = toolsByName(tools, dialect).get(choice.name);
    return { name: tool?.name ?? choice.name };
  }
  throw new RequestError(`tool_choice of the type ${quoted(String(choice.type))} is not supported`, {
    code: "unsupported_parameter",
    where: "tool_choice",
    hint: "Use none, auto, required, or the name of a function",
  });
}

/** On unless the effort is none; a client that requires a call and says nothing of reasoning gets none. */
function readThinking({ reasoning }: ResponsesBody, choice: ToolChoice, thinks: boolean): boolean {
  const requiresCall = choice === "required" || typeof choice === "object";
  const effort = reasoning?.effort ?? undefined;
  return effort === undefined ? thinks && !requiresCall : effort !== "none";
}

function readEffort({ reasoning }: ResponsesBody): Effort {
  const levels: Readonly<Record<string, Effort>> = {
    none: "high",
    minimal: "low",
    low: "low",
    medium: "high",
    high: "high",
    xhigh: "high",
    max: "max",
  };
  const effort = reasoning?.effort ?? "high";
  if (typeof effort === "number" && effort >= 1 && effort <= 100) return effort;
  if (typeof effort === "string" && Object.hasOwn(levels, effort)) return levels[effort]!;
  throw wrong("reasoning.effort", String(effort), `one of ${Object.keys(levels).join(", ")}`);
}

function readFormat({ text }: ResponsesBody): ResponseFormat {
  const type = text?.format?.type ?? "text";
  if (type === "text" || type === "json_object") return { type };
  throw new RequestError("Answers that follow a schema are not offered yet", {
    code: "unsupported_parameter",
    where: "text.format",
    hint: 'Use {"type": "json_object"} and describe the JSON in the input, or a tool',
  });
}
