/** Items of a Responses conversation as chat messages: what the assistant said, thought and called in one turn is one message. */
import type { ChatMessage, Content, ContentPart, HistoryCall } from "../../../chat/chat-request.ts";
import type { Dialect } from "../../../chat/dialect.ts";
import { Fields, wrong } from "../../../chat/read-json.ts";
import type { Pacer } from "../../../engine/pacer.ts";
import { quoted, RequestError } from "../../../errors.ts";
import type { Json } from "../../../json/parse-json.ts";

interface OpenTurn {
  reasoning: string;
  content: ContentPart[];
  calls: HistoryCall[];
}

const sealPrefix = "freehold1.";

/** Reasoning that a client keeps without reading it. It is wrapped, not secret: the client may see its own model's thoughts. */
export function sealReasoning(text: string): string {
  return sealPrefix + Buffer.from(text, "utf8").toString("base64url");
}

function openReasoning(sealed: string): string {
  return sealed.startsWith(sealPrefix)
    ? Buffer.from(sealed.slice(sealPrefix.length), "base64url").toString("utf8")
    : "";
}

export async function foldItems(items: readonly Json[], dialect: Dialect, pacer: Pacer): Promise<ChatMessage[]> {
  const folder = new Folder(dialect);
  for (const [i, item] of items.entries()) {
    folder.add(new Fields(item, `input[${i}]`));
    await pacer.pause();
  }
  return folder.end();
}

class Folder {
  readonly #messages: ChatMessage[] = [];
  readonly #dialect: Dialect;
  #turn: OpenTurn | undefined;

  constructor(dialect: Dialect) {
    this.#dialect = dialect;
  }

  add(item: Fields): void {
    const type = item.string("type") ?? "message";
    switch (type) {
      case "message":
        this.#message(item);
        break;
      case "reasoning":
        this.#reasoning(item);
        break;
      case "function_call":
      case "custom_tool_call":
        this.#call(item, type === "custom_tool_call");
        break;
      case "function_call_output":
      case "custom_tool_call_output":
        this.#closeTurn();
        this.#messages.push({
          role: "tool",
          callId: item.required("call_id", item.string("call_id")),
          content: readContent(item.get("output"), item.path("output")),
        });
        break;
      default: // what tools of other servers left behind says nothing here
        break;
    }
  }

  end(): ChatMessage[] {
    this.#closeTurn();
    return this.#messages;
  }

  #message(item: Fields): void {
    const role = item.required("role", item.string("role"));
    const content = readContent(item.get("content"), item.path("content"));
    switch (role) {
      case "assistant":
        if (this.#turn !== undefined && this.#turn.content.length > 0) this.#closeTurn();
        this.#open().content.push(...content);
        break;
      case "user":
        this.#closeTurn();
        this.#messages.push({ role, content, task: undefined });
        break;
      case "system":
      case "developer":
        this.#closeTurn();
        this.#messages.push({ role: "system", content, tools: [] });
        break;
      default:
        throw wrong(item.path("role"), role, "user, assistant, system or developer");
    }
  }

  /** Reasoning begins a turn. What is sealed is the whole; a summary may be less. */
  #reasoning(item: Fields): void {
    if (this.#turn !== undefined && (this.#turn.content.length > 0 || this.#turn.calls.length > 0)) this.#closeTurn();
    const sealed = openReasoning(item.string("encrypted_content") ?? "");
    const shown = [...(item.list("content") ?? []), ...(item.list("summary") ?? [])];
    const text =
      sealed || shown.map((part, i) => new Fields(part, `${item.where}[${i}]`).string("text") ?? "").join("");
    this.#open().reasoning += text;
  }

  #call(item: Fields, isCustom: boolean): void {
    const name = item.required("name", item.string("name"));
    const namespace = item.string("namespace");
    this.#open().calls.push({
      id: item.required("call_id", item.string("call_id")),
      name: namespace === undefined ? name : `${namespace}${this.#dialect.namespaceSeparator}${name}`,
      arguments: isCustom ? JSON.stringify({ input: item.string("input") ?? "" }) : (item.string("arguments") ?? ""),
    });
  }

  #open(): OpenTurn {
    this.#turn ??= { reasoning: "", content: [], calls: [] };
    return this.#turn;
  }

  #closeTurn(): void {
    const turn = this.#turn;
    this.#turn = undefined;
    if (turn === undefined || (turn.content.length === 0 && turn.calls.length === 0)) return;
    const { reasoning, content, calls } = turn;
    const isEmpty = content.length === 0;
    this.#messages.push({
      role: "assistant",
      content: isEmpty ? undefined : content,
      reasoning,
      calls,
      isPrefix: false,
    });
  }
}

function readContent(value: Json | undefined, where: string): Content {
  if (value === undefined) return [];
  if (typeof value === "string") return [{ type: "text", text: value }];
  if (!Array.isArray(value)) throw wrong(where, value, "a text or a list of parts");
  return (value as readonly Json[]).map((item, i): ContentPart => {
    const part = new Fields(item, `${where}[${i}]`);
    const type = part.required("type", part.string("type"));
    switch (type) {
      case "input_text":
      case "output_text":
      case "text":
      case "summary_text":
      case "reasoning_text":
        return { type: "text", text: part.required("text", part.string("text")) };
      case "refusal":
        return { type: "text", text: part.string("refusal") ?? "" };
      case "input_image":
        return { type: "image", url: imageUrl(part) };
      default:
        throw new RequestError(`${part.path("type")} is ${quoted(type)}, which this server cannot read`, {
          code: "request",
          where: part.path("type"),
          hint: "Parts are input_text, output_text and input_image",
        });
    }
  });
}

function imageUrl(part: Fields): string {
  const url = part.string("image_url");
  if (url !== undefined) return url;
  throw new RequestError(`${part.path("image_url")} is missing`, {
    code: "request",
    where: part.path("image_url"),
    hint: "Send the image itself, as data:image/png;base64,...; there are no stored files",
  });
}
