/** One answer in the shape of Messages: as a whole, and as the events of a stream. */
import { createHash } from "node:crypto";
import type { AnswerDelta, AnswerResult } from "../../generation/answer-reader.ts";
import type { AnswerUsage } from "../../generation/run-answers.ts";
import type { AnswerBlock, Message, MessagesEvent, StopReason } from "../schemas/messages.ts";

export interface MessageHead {
  readonly id: string;
  readonly model: string;
}

export function wholeMessage(head: MessageHead, result: AnswerResult, usage: AnswerUsage): Message {
  const { reasoning, content, calls } = result;
  const blocks: AnswerBlock[] = [];
  if (reasoning !== "") blocks.push({ type: "thinking", thinking: reasoning, signature: signThinking(reasoning) });
  if (content !== "") blocks.push({ type: "text", text: content, citations: null });
  for (const { id, name, arguments: text } of calls) blocks.push(toolUse(id, name, JSON.parse(text)));
  return { ...emptyMessage(head, usage), content: blocks, ...stopOf(result) };
}

/** The events of a stream in their ladder: one block is open at a time. */
export class MessagesEncoder {
  readonly #head: MessageHead;
  #index = -1;
  #open: AnswerDelta["type"] | undefined;
  #thinking = "";

  constructor(head: MessageHead) {
    this.#head = head;
  }

  start(usage: AnswerUsage): MessagesEvent[] {
    return [{ type: "message_start", message: emptyMessage(this.#head, usage) }, { type: "ping" }];
  }

  delta(delta: AnswerDelta): MessagesEvent[] {
    switch (delta.type) {
      case "reasoning":
        this.#thinking += delta.text;
        return [
          ...this.#openBlock(delta.type, { type: "thinking", thinking: "", signature: "" }),
          this.#part({ type: "thinking_delta", thinking: delta.text }),
        ];
      case "content":
        return [
          ...this.#openBlock(delta.type, { type: "text", text: "", citations: null }),
          this.#part({ type: "text_delta", text: delta.text }),
        ];
      case "toolCall":
        return [...this.#closeBlock(), ...this.#openBlock(delta.type, toolUse(delta.id, delta.name, {}))];
      case "toolArguments":
        return [this.#part({ type: "input_json_delta", partial_json: delta.text })];
      default:
        return delta satisfies never;
    }
  }

  end(result: AnswerResult, usage: AnswerUsage): MessagesEvent[] {
    const { cache_creation: _, inference_geo: __, service_tier: ___, speed: ____, ...told } = messageUsage(usage);
    return [
      ...this.#closeBlock(),
      { type: "message_delta", delta: { ...stopOf(result), stop_details: null, container: null }, usage: told },
      { type: "message_stop" },
    ];
  }

  #openBlock(type: AnswerDelta["type"], block: AnswerBlock): MessagesEvent[] {
    if (this.#open === type && type !== "toolCall") return [];
    const closing = this.#closeBlock();
    this.#open = type;
    this.#index++;
    return [...closing, { type: "content_block_start", index: this.#index, content_block: block }];
  }

  #closeBlock(): MessagesEvent[] {
    if (this.#open === undefined) return [];
    const signature: MessagesEvent[] =
      this.#open === "reasoning"
        ? [this.#part({ type: "signature_delta", signature: signThinking(this.#thinking) })]
        : [];
    this.#open = undefined;
    return [...signature, { type: "content_block_stop", index: this.#index }];
  }

  #part(delta: Extract<MessagesEvent, { type: "content_block_delta" }>["delta"]): MessagesEvent {
    return { type: "content_block_delta", index: this.#index, delta };
  }
}

/** Clients send it back with the text. Nothing is proved by it: the text itself is what is read. */
function signThinking(text: string): string {
  return `freehold.${createHash("sha256").update(text).digest("base64url")}`;
}

function toolUse(id: string, name: string, input: Record<string, unknown>): AnswerBlock {
  return { type: "tool_use", id, name, input, caller: { type: "direct" } };
}

function emptyMessage({ id, model }: MessageHead, usage: AnswerUsage): Message {
  return {
    id,
    type: "message",
    role: "assistant",
    model,
    content: [],
    stop_reason: null,
    stop_sequence: null,
    stop_details: null,
    container: null,
    diagnostics: null,
    usage: messageUsage(usage),
  };
}

/** Anthropic counts tokens read from the cache apart from the others. */
function messageUsage({ promptTokens, cachedTokens, generatedTokens }: AnswerUsage): Message["usage"] {
  return {
    input_tokens: promptTokens - cachedTokens,
    output_tokens: generatedTokens,
    cache_creation_input_tokens: 0,
    cache_read_input_tokens: cachedTokens,
    cache_creation: null,
    inference_geo: null,
    output_tokens_details: null,
    server_tool_use: null,
    service_tier: "standard",
    speed: null,
  };
}

function stopOf({ finish, stopString }: AnswerResult): { stop_reason: StopReason; stop_sequence: string | null } {
  if (stopString !== undefined) return { stop_reason: "stop_sequence", stop_sequence: stopString };
  const reasons = {
    stop: "end_turn",
    length: "max_tokens",
    tool_calls: "tool_use",
    content_filter: "end_turn",
  } as const;
  return { stop_reason: reasons[finish], stop_sequence: null };
}
