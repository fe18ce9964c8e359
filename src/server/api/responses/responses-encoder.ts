/** One answer in the shape of Responses: items with their ladder of events, one open at a time. */
import type { AnswerDelta, AnswerResult } from "../../generation/answer-reader.ts";
import type { AnswerUsage } from "../../generation/run-answers.ts";
import type { TokenText } from "../../generation/token-logprobs.ts";
import { finiteLogprob } from "../chat/chat-encoder.ts";
import type { OutputItem, ResponseLogprobs, ResponseObject, ResponsesEvent } from "../schemas/responses.ts";
import { sealReasoning } from "./fold-items.ts";
import { customInput, type ResponseTool } from "./response-tools.ts";

export interface EncoderOptions {
  /** Ids of items are made of it. */
  readonly requestId: string;
  readonly tools: ReadonlyMap<string, ResponseTool>;
  /** Reasoning is shown as a summary, where one was asked for, else as text of its own kind. */
  readonly showsSummary: boolean;
  readonly sealsReasoning: boolean;
}

type WithoutNumber<T> = T extends unknown ? Omit<T, "sequence_number"> : never;
type NewEvent = WithoutNumber<ResponsesEvent>;
/** What llama-server tells beside OpenAI's events. */
type Telemetry = Omit<
  Extract<ResponsesEvent, { type: "response.in_progress" }>,
  "type" | "response" | "sequence_number"
>;
type Item<T extends OutputItem["type"]> = Extract<OutputItem, { type: T }>;

export class ResponsesEncoder {
  readonly #base: ResponseObject;
  readonly #options: EncoderOptions;
  readonly #items: OutputItem[] = [];
  #isOpen = false;
  /** Arguments of the open call. */
  #arguments = "";
  #events: ResponsesEvent[] = [];
  #sequence = 0;

  constructor(base: ResponseObject, options: EncoderOptions) {
    this.#base = base;
    this.#options = options;
  }

  start(): ResponsesEvent[] {
    this.#emit({ type: "response.created", response: this.#base });
    this.#emit({ type: "response.in_progress", response: this.#base });
    return this.#take();
  }

  /** How far the prompt is: one more event of a kind that clients know. */
  progress(prompt_progress: Telemetry["prompt_progress"]): ResponsesEvent[] {
    this.#emit({ type: "response.in_progress", response: this.#base, prompt_progress });
    return this.#take();
  }

  /** `timings` goes with the text, if there is any. */
  delta(delta: AnswerDelta, timings?: Telemetry["timings"]): ResponsesEvent[] {
    switch (delta.type) {
      case "reasoning":
        this.#reasoning(delta.text);
        break;
      case "content":
        this.#content(delta.text, delta.tokens ?? [], timings);
        break;
      case "toolCall":
        this.#startCall(delta.id, delta.name);
        break;
      case "toolArguments":
        this.#addArguments(delta.text);
        break;
      default:
        delta satisfies never;
    }
    return this.#take();
  }

  /** The last events; the last of them holds the whole response. */
  end(
    { finish }: AnswerResult,
    usage: AnswerUsage,
    now: number,
    timings?: Telemetry["timings"],
  ): { events: ResponsesEvent[]; response: ResponseObject } {
    const isWhole = finish !== "length";
    this.#close(isWhole ? "completed" : "incomplete");
    const response: ResponseObject = {
      ...this.#base,
      status: isWhole ? "completed" : "incomplete",
      completed_at: isWhole ? Math.floor(now) : null,
      incomplete_details: isWhole ? null : { reason: "max_output_tokens" },
      output: this.#items,
      output_text: this.#items
        .flatMap((item) => (item.type === "message" ? item.content.map(({ text }) => text) : []))
        .join(""),
      usage: responseUsage(usage),
    };
    const type = isWhole ? "response.completed" : "response.incomplete";
    this.#emit({ type, response, ...(timings && { timings }) });
    return { events: this.#take(), response };
  }

  fail(message: string): ResponsesEvent[] {
    this.#events = [];
    const error = { code: "server_error" as const, message };
    this.#emit({ type: "response.failed", response: { ...this.#base, status: "failed", error, output: this.#items } });
    return this.#take();
  }

  #reasoning(text: string): void {
    const { showsSummary, requestId } = this.#options;
    let item = this.#current("reasoning");
    if (item === undefined) {
      const id = `rs_${requestId}_${this.#items.length}`;
      item = this.#add({
        type: "reasoning",
        id,
        status: "in_progress",
        summary: [],
        content: [],
        encrypted_content: null,
      });
      if (showsSummary) {
        const part = { type: "summary_text", text: "" } as const;
        item.summary.push({ ...part });
        this.#emit({ type: "response.reasoning_summary_part.added", ...this.#at(item), summary_index: 0, part });
      } else {
        const part = { type: "reasoning_text", text: "" } as const;
        item.content.push({ ...part });
        this.#emit({ type: "response.content_part.added", ...this.#at(item), content_index: 0, part });
      }
    }
    (item.summary[0] ?? item.content[0])!.text += text;
    const at = this.#at(item);
    if (showsSummary)
      this.#emit({ type: "response.reasoning_summary_text.delta", ...at, summary_index: 0, delta: text });
    else this.#emit({ type: "response.reasoning_text.delta", ...at, content_index: 0, delta: text });
  }

  #content(text: string, tokens: readonly TokenText[], timings: Telemetry["timings"]): void {
    let item = this.#current("message");
    if (item === undefined) {
      const id = `msg_${this.#options.requestId}_${this.#items.length}`;
      item = this.#add({ type: "message", id, status: "in_progress", role: "assistant", content: [] });
      item.content.push(emptyText());
      this.#emit({ type: "response.content_part.added", ...this.#at(item), content_index: 0, part: emptyText() });
    }
    const logprobs = tokens.map(responseLogprob);
    const part = item.content[0]!;
    part.text += text;
    part.logprobs.push(...logprobs);
    const told = { delta: text, logprobs, ...(timings && { timings }) };
    this.#emit({ type: "response.output_text.delta", ...this.#at(item), content_index: 0, ...told });
  }

  #startCall(callId: string, fullName: string): void {
    const tool = this.#options.tools.get(fullName);
    const name = tool?.name ?? fullName;
    const namespace = tool?.namespace === undefined ? {} : { namespace: tool.namespace.name };
    const id = `fc_${this.#options.requestId}_${this.#items.length}`;
    const common = { id, status: "in_progress", call_id: callId, name, ...namespace } as const;
    this.#arguments = "";
    if (tool?.isCustom) this.#add({ type: "custom_tool_call", ...common, id: `ctc${id.slice(2)}`, input: "" });
    else this.#add({ type: "function_call", ...common, arguments: "" });
  }

  #addArguments(text: string): void {
    this.#arguments += text;
    const item = this.#current("function_call");
    // The text of a custom tool stands inside the arguments: it is told when they are whole.
    if (item !== undefined)
      this.#emit({ type: "response.function_call_arguments.delta", ...this.#at(item), delta: text });
  }

  /** The open item, if it is of this type. */
  #current<T extends OutputItem["type"]>(type: T): Item<T> | undefined {
    const item = this.#isOpen ? this.#items.at(-1) : undefined;
    return item?.type === type ? (item as Item<T>) : undefined; // the type was just compared
  }

  #add<T extends OutputItem>(item: T): T {
    this.#close("completed");
    this.#items.push(item);
    this.#isOpen = true;
    this.#emit({
      type: "response.output_item.added",
      output_index: this.#items.length - 1,
      item: structuredClone(item),
    });
    return item;
  }

  #close(status: "completed" | "incomplete"): void {
    const item = this.#isOpen ? this.#items.at(-1) : undefined;
    this.#isOpen = false;
    if (item === undefined) return;
    item.status = status;
    this.#closeParts(item);
    this.#emit({ type: "response.output_item.done", output_index: this.#items.length - 1, item });
  }

  #closeParts(item: OutputItem): void {
    const at = this.#at(item);
    switch (item.type) {
      case "message": {
        const part = item.content[0]!;
        const { text, logprobs } = part;
        this.#emit({ type: "response.output_text.done", ...at, content_index: 0, text, logprobs });
        this.#emit({ type: "response.content_part.done", ...at, content_index: 0, part });
        break;
      }
      case "reasoning":
        this.#closeReasoning(item);
        break;
      case "function_call":
        item.arguments = this.#arguments;
        this.#emit({
          type: "response.function_call_arguments.done",
          ...at,
          name: item.name,
          arguments: this.#arguments,
        });
        break;
      case "custom_tool_call":
        item.input = customInput(this.#arguments);
        this.#emit({ type: "response.custom_tool_call_input.delta", ...at, delta: item.input });
        this.#emit({ type: "response.custom_tool_call_input.done", ...at, input: item.input });
        break;
      default:
        item satisfies never;
    }
  }

  #closeReasoning(item: Item<"reasoning">): void {
    const at = this.#at(item);
    const [summary, content] = [item.summary[0], item.content[0]];
    if (summary !== undefined) {
      this.#emit({ type: "response.reasoning_summary_text.done", ...at, summary_index: 0, text: summary.text });
      this.#emit({ type: "response.reasoning_summary_part.done", ...at, summary_index: 0, part: summary });
    }
    if (content !== undefined) {
      this.#emit({ type: "response.reasoning_text.done", ...at, content_index: 0, text: content.text });
      this.#emit({ type: "response.content_part.done", ...at, content_index: 0, part: content });
    }
    if (this.#options.sealsReasoning) item.encrypted_content = sealReasoning((summary ?? content)!.text);
  }

  #at({ id }: OutputItem): { output_index: number; item_id: string } {
    return { output_index: this.#items.length - 1, item_id: id };
  }

  #emit(event: NewEvent): void {
    this.#events.push({ ...event, sequence_number: this.#sequence++ } as ResponsesEvent); // all but the number was checked
  }

  #take(): ResponsesEvent[] {
    const events = this.#events;
    this.#events = [];
    return events;
  }
}

function emptyText(): Item<"message">["content"][number] {
  return { type: "output_text", text: "", annotations: [], logprobs: [] };
}

function responseLogprob({ token, logprob, bytes, top }: TokenText): ResponseLogprobs[number] {
  const plain = (one: Omit<TokenText, "top">) => ({
    token: one.token,
    logprob: finiteLogprob(one.logprob),
    bytes: [...one.bytes],
  });
  return { token, logprob: finiteLogprob(logprob), bytes: [...bytes], top_logprobs: top.map(plain) };
}

function responseUsage({ promptTokens, cachedTokens, generatedTokens, reasoningTokens }: AnswerUsage) {
  return {
    input_tokens: promptTokens,
    input_tokens_details: { cached_tokens: cachedTokens, cache_write_tokens: 0 },
    output_tokens: generatedTokens,
    output_tokens_details: { reasoning_tokens: reasoningTokens },
    total_tokens: promptTokens + generatedTokens,
  };
}
