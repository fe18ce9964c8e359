/** What a chat request must be beyond its shape. The rules are those of DeepSeek's API, which answers with status 400. */
import { quoted, RequestError } from "../errors.ts";
import { JsonObject } from "../json/parse-json.ts";
import type { ChatMessage, ChatRequest, Tool } from "./chat-request.ts";

/** Throws a RequestError for the first rule that is broken. */
export function checkRequest(request: ChatRequest): void {
  const { messages } = request;
  if (messages.length === 0) refuse("There are no messages", "messages", "Give at least one");
  let calls: ReadonlySet<string> = new Set();
  messages.forEach((message, i) => {
    // Results stand directly behind the message whose calls they answer.
    if (message.role === "tool") requireCall(message.callId, calls, i);
    else calls = new Set(message.role === "assistant" ? message.calls.map(({ id }) => id) : []);
    if (message.role === "assistant") checkAssistant(message, i, messages);
  });
  checkTools(request);
  const last = messages.at(-1)!;
  if (last.role === "assistant" && last.isPrefix && toolsInForce(request).length > 0) {
    refuse("A prefix cannot be completed together with tools", `messages[${messages.length - 1}].prefix`);
  }
  if (request.responseFormat.type === "json_object" && !messages.some(mentionsJson)) {
    refuse("The messages never say the word json", "response_format", "Tell the model what JSON you want");
  }
}

/** The tools that the model may call: none, all, or the one that was named. */
export function toolsInForce({ tools, toolChoice }: ChatRequest): readonly Tool[] {
  if (toolChoice === "none") return [];
  return typeof toolChoice === "object" ? tools.filter((tool) => tool.name === toolChoice.name) : tools;
}

function requireCall(id: string, calls: ReadonlySet<string>, i: number): void {
  if (calls.has(id)) return;
  refuse(
    "A tool message answers no call",
    `messages[${i}].tool_call_id`,
    "Put it behind the assistant message with its call",
  );
}

function checkAssistant(
  message: Extract<ChatMessage, { role: "assistant" }>,
  i: number,
  messages: readonly ChatMessage[],
): void {
  const where = `messages[${i}]`;
  if (message.isPrefix && i !== messages.length - 1) refuse("Only the last message can be a prefix", `${where}.prefix`);
  if (message.content === undefined && message.calls.length === 0 && !message.isPrefix) {
    refuse("An assistant message has neither content nor tool calls", where);
  }
  const answered = new Set<string>();
  for (let k = i + 1; k < messages.length; k++) {
    const answer = messages[k]!;
    if (answer.role !== "tool") break;
    answered.add(answer.callId);
  }
  const open = message.calls.find((call) => !answered.has(call.id));
  if (open !== undefined) {
    refuse(
      `The call ${quoted(open.id)} is not answered`,
      `${where}.tool_calls`,
      "Give a tool message for each call, directly behind",
    );
  }
}

function checkTools(request: ChatRequest): void {
  const names = new Set<string>();
  request.tools.forEach((tool, i) => {
    const where = `tools[${i}]`;
    if (!/^[a-zA-Z0-9_-]+$/.test(tool.name)) {
      refuse(`The tool name ${quoted(tool.name)} is not allowed`, `${where}.name`, "Use letters, digits, _ and -");
    }
    const fullName = `${tool.namespace?.name ?? ""}::${tool.name}`;
    if (names.has(fullName)) refuse(`Two tools have the name ${tool.name.slice(0, 80)}`, `${where}.name`);
    names.add(fullName);
    const { parameters } = tool;
    const isEmptyDefault = parameters instanceof JsonObject && parameters.entries.length === 0 && !tool.hasParameters;
    const isObjectSchema = parameters instanceof JsonObject && parameters.get("type") === "object";
    if (!isObjectSchema && !isEmptyDefault) {
      refuse("The parameters of a tool are no object schema", `${where}.parameters`, 'Begin with {"type": "object"}');
    }
  });
  const { toolChoice } = request;
  if (typeof toolChoice === "object" && toolsInForce(request).length === 0) {
    refuse(`There is no tool ${quoted(toolChoice.name)}`, "tool_choice");
  }
  const required = toolChoice === "required" || typeof toolChoice === "object";
  if (required && request.thinking) {
    refuse(
      "A tool call cannot be required while thinking is on",
      "tool_choice",
      'Send "thinking": {"type": "disabled"}',
    );
  }
}

function mentionsJson(message: ChatMessage): boolean {
  return (message.content ?? []).some((part) => part.type === "text" && /json/i.test(part.text));
}

function refuse(message: string, where: string, hint?: string): never {
  throw new RequestError(message, { code: "request", where, ...(hint === undefined ? {} : { hint }) });
}
