/**
 * From a conversation to the exact prompt of a DeepSeek V4 or V4.1 model.
 *   head (system text, tools, response format), the messages in turn, and the header of the answer
 */
import { RequestError } from "../errors.ts";
import { finishSteps } from "../finish-steps.ts";
import { type ChatMessage, type ChatRequest, type Content, type HistoryCall, messagesAtOnce } from "./chat-request.ts";
import { toolsInForce } from "./check-request.ts";
import {
  type Dialect,
  type DialectName,
  dialects,
  groundingTokens,
  schemaFormatHead,
  taskTokens,
  token,
} from "./dialect.ts";
import type { ParseOptions } from "./output-parser.ts";
import { printJson } from "./print-json.ts";
import { type Prompt, PromptBuilder, type PromptPart } from "./prompt.ts";
import { renderCalls, renderToolBlock, schemaLines } from "./tool-block.ts";

/** Renders a request in a dialect; a request that names its own (`version`) is rendered in that. */
export function renderPrompt(request: ChatRequest, dialectName: DialectName): Prompt {
  return finishSteps(renderPromptInSteps(request, dialectName));
}

/** The same in steps of some messages each. */
export function renderPromptInSteps(request: ChatRequest, dialectName: DialectName): Generator<undefined, Prompt> {
  return new Renderer(request, dialects[request.version ?? dialectName]).render();
}

/**
 * The prompt of fill-in-the-middle: the model writes what stands between prefix and suffix. Experimental: the token order is
 * that of DeepSeek's earlier models; V4 keeps the tokens, but no published source spells its format out.
 */
export function renderFillInMiddle(prefix: string, suffix: string): Prompt {
  return new PromptBuilder()
    .special(token.begin)
    .special(token.fimBegin)
    .text(prefix)
    .special(token.fimHole)
    .text(suffix)
    .special(token.fimEnd)
    .build({ start: "contentContinuation", toolCalls: false, inToolCalls: false, json: false, stop: [] });
}

/** What the prompt ends with when a call is required: the block of calls is open already. */
export function openedCalls(dialect: Dialect): PromptPart[] {
  return [{ text: "\n\n<" }, { special: token.dsml }, { text: `${dialect.tags.calls}>\n` }];
}

type AssistantMessage = Extract<ChatMessage, { role: "assistant" }>;

class Renderer {
  readonly #request: ChatRequest;
  readonly #dialect: Dialect;
  readonly #prompt = new PromptBuilder();
  readonly #hasTools: boolean;
  readonly #requiresCall: boolean;
  #userRunHasText = false;

  constructor(request: ChatRequest, dialect: Dialect) {
    this.#request = request;
    this.#dialect = dialect;
    this.#hasTools = toolsInForce(request).length > 0;
    this.#requiresCall =
      this.#hasTools && (request.toolChoice === "required" || typeof request.toolChoice === "object");
  }

  *render(): Generator<undefined, Prompt> {
    const { head, rest } = this.#splitHead();
    this.#head(head, rest.length > 0);
    yield;
    const ordered = this.#orderToolResults(rest);
    for (const [i, message] of ordered.entries()) {
      if (i % messagesAtOnce === 0) yield;
      yield* this.#message(message, ordered[i - 1], i === ordered.length - 1);
    }
    const last = ordered.at(-1);
    const isPrefix = last?.role === "assistant" && last.isPrefix;
    const endsInTask = last?.role === "user" && last.task !== undefined;
    if (!isPrefix && !endsInTask) this.#answerHeader();
    return this.#prompt.build(this.#parseOptions(isPrefix ? last : undefined));
  }

  /** The system text of the head, and the messages that follow it. */
  #splitHead(): { head: readonly Content[]; rest: readonly ChatMessage[] } {
    const { messages } = this.#request;
    const isEmpty = (content: Content) => joinText(content) === "";
    if (!this.#dialect.keepsLaterSystem) {
      const system = messages.filter((message) => message.role === "system" && !isEmpty(message.content));
      return {
        head: system.map((message) => message.content!),
        rest: messages.filter((message) => message.role !== "system"),
      };
    }
    const rest = messages.filter(
      (message) => message.role !== "system" || !isEmpty(message.content) || message.tools.length > 0,
    );
    const [first] = rest;
    return first?.role === "system" && first.tools.length === 0
      ? { head: [first.content], rest: rest.slice(1) }
      : { head: [], rest };
  }

  #head(system: readonly Content[], hasMessages: boolean): void {
    const { responseFormat, thinking, effort } = this.#request;
    const hasFormat = responseFormat.type !== "text";
    const hasText = system.length > 0 || this.#hasTools || hasFormat;
    const { systemToken } = this.#dialect;
    this.#prompt.special(token.begin);
    const effortText =
      thinking && (systemToken === undefined || hasText || hasMessages) ? this.#effortText(effort) : "";
    if (systemToken !== undefined && (effortText !== "" || hasText)) this.#prompt.special(systemToken);
    this.#prompt.text(effortText);
    system.forEach((content, i) => {
      if (i > 0) this.#prompt.text("\n\n");
      this.#content(content);
    });
    if (this.#hasTools) renderToolBlock(this.#prompt.text("\n\n"), toolsInForce(this.#request), this.#dialect);
    if (hasFormat) this.#prompt.text("\n\n").text(this.#formatText());
  }

  #effortText(effort: ChatRequest["effort"]): string {
    if (typeof effort === "number" && this.#dialect.systemToken === undefined) {
      throw new RequestError("A number as reasoning effort is known to V4.1 only", {
        code: "request",
        where: "reasoning_effort",
        hint: "Use low, high or max",
      });
    }
    return this.#dialect.effortText(effort);
  }

  #formatText(): string {
    const { responseFormat } = this.#request;
    if (responseFormat.type !== "json_schema") return this.#dialect.jsonObjectFormat;
    return schemaFormatHead + printJson(responseFormat.schema, this.#dialect);
  }

  /** Results follow their calls in the calls' order; V4 first puts the calls in the order of their ids. */
  #orderToolResults(messages: readonly ChatMessage[]): ChatMessage[] {
    const ordered: ChatMessage[] = [];
    for (let i = 0; i < messages.length; ) {
      const message = messages[i++]!;
      if (message.role !== "assistant" || message.calls.length === 0) {
        ordered.push(message);
        continue;
      }
      const calls = this.#dialect.sortsCalls ? message.calls.toSorted(byId) : message.calls;
      ordered.push({ ...message, calls });
      const place = new Map(calls.map((call, k) => [call.id, k]));
      const results: Extract<ChatMessage, { role: "tool" }>[] = [];
      for (let next = messages[i]; next?.role === "tool"; next = messages[++i]) results.push(next);
      const placeOf = (callId: string) => place.get(callId) ?? calls.length;
      ordered.push(...results.sort((a, b) => placeOf(a.callId) - placeOf(b.callId)));
    }
    return ordered;
  }

  *#message(message: ChatMessage, before: ChatMessage | undefined, isLast: boolean): Generator<undefined, void> {
    switch (message.role) {
      case "system":
        this.#prompt.special(this.#dialect.systemToken ?? token.user);
        this.#content(message.content);
        if (message.tools.length > 0) {
          this.#prompt.text(`\n\n### Updated Tool Schemas\n\n${schemaLines(message.tools, this.#dialect)}`);
        }
        break;
      case "user":
        if (before?.role !== "user") this.#userRunHasText = false;
        this.#openUserTurn(message, before);
        this.#userRunHasText ||= joinText(message.content) !== "";
        this.#content(message.content);
        if (message.task !== undefined) this.#task(message.task);
        break;
      case "tool":
        this.#openUserTurn(message, before);
        this.#prompt.text("<tool_result>");
        this.#content(message.content);
        this.#prompt.text("</tool_result>");
        break;
      case "latest_reminder":
        this.#prompt.special(token.reminder);
        this.#content(message.content);
        break;
      case "assistant":
        if (message.isPrefix && isLast) this.#prefix(message);
        else yield* this.#assistant(message, before);
        break;
      default:
        message satisfies never;
    }
  }

  /** User and tool messages one after another are one turn, with a blank line between them. */
  #openUserTurn(message: ChatMessage, before: ChatMessage | undefined): void {
    if (before?.role !== "user" && before?.role !== "tool") {
      this.#prompt.special(token.user);
      return;
    }
    // V4 joins a run of user messages as if the empty ones were not there.
    const isEmpty = message.role === "user" && (joinText(message.content) === "" || !this.#userRunHasText);
    const joins = this.#dialect.joinsEmptyUser && before.role === "user" && isEmpty;
    if (!joins) this.#prompt.text("\n\n");
  }

  *#assistant(message: AssistantMessage, before: ChatMessage | undefined): Generator<undefined, void> {
    const answersTask = before?.role === "user" && before.task !== undefined;
    if (!answersTask) {
      this.#prompt.special(token.assistant);
      if (this.#request.thinking && (this.#hasTools || this.#request.keepsReasoning)) {
        this.#prompt.special(token.think).mixed(message.reasoning, groundingTokens);
      }
      this.#prompt.special(token.endThink);
    }
    if (message.verbatim !== undefined) this.#prompt.append(message.verbatim);
    else {
      this.#assistantContent(message.content ?? []);
      if (message.calls.length > 0) yield* renderCalls(this.#prompt, message.calls, this.#dialect);
    }
    this.#prompt.special(token.end);
  }

  #prefix({ content, reasoning }: AssistantMessage): void {
    this.#prompt.special(token.assistant);
    const hasContent = joinText(content ?? []) !== "";
    if (this.#request.thinking) this.#prompt.special(token.think).mixed(reasoning, groundingTokens);
    if (!this.#request.thinking || hasContent) this.#prompt.special(token.endThink);
    this.#assistantContent(content ?? []);
  }

  /** A task on a message takes the place of the answer's header; an action comes behind it. */
  #task(task: string): void {
    if (task === "action") this.#answerHeader();
    this.#prompt.special(taskTokens[task]!);
  }

  #answerHeader(): void {
    this.#prompt.special(token.assistant).special(this.#request.thinking ? token.think : token.endThink);
    if (this.#requiresCall) this.#prompt.append(openedCalls(this.#dialect));
  }

  /** Parts are joined by blank lines; an image is a token, or in V4 words that say there was one. */
  #content(content: Content): void {
    content.forEach((part, i) => {
      if (i > 0) this.#prompt.text("\n\n");
      if (part.type === "text") this.#prompt.text(part.text);
      else if (this.#dialect.imageToken === undefined) this.#prompt.text("[Unsupported Image]");
      else {
        this.#prompt.special(this.#dialect.imageToken);
        this.#prompt.images.push(part.url);
      }
    });
  }

  #assistantContent(content: Content): void {
    const hasImage = content.some((part) => part.type === "image");
    if (hasImage && this.#dialect.imageToken !== undefined) {
      throw new RequestError("An assistant message holds an image", {
        code: "request",
        where: "messages",
        hint: "Images are input only",
      });
    }
    const text = content.map((part) => (part.type === "text" ? part.text : "[Unsupported Image]")).join("\n\n");
    this.#prompt.mixed(text, groundingTokens);
  }

  #parseOptions(prefix: AssistantMessage | undefined): ParseOptions {
    return {
      start: this.#answerStart(prefix),
      toolCalls: this.#hasTools,
      inToolCalls: this.#requiresCall,
      json: this.#request.responseFormat.type === "json_object",
      stop: this.#request.stop,
    };
  }

  #answerStart(prefix: AssistantMessage | undefined): ParseOptions["start"] {
    if (!this.#request.thinking) return "content";
    if (prefix === undefined) return "reasoning";
    if (joinText(prefix.content ?? []) !== "") return "contentContinuation";
    return prefix.reasoning !== "" ? "reasoningContinuation" : "reasoning";
  }
}

/** The text of a content; an image counts as text that is not empty. */
function joinText(content: Content): string {
  return content.map((part) => (part.type === "text" ? part.text : "[image]")).join("\n\n");
}

/** Order of code points, as other languages compare strings. */
function byId({ id: a }: HistoryCall, { id: b }: HistoryCall): number {
  const common = Math.min(a.length, b.length);
  for (let i = 0; i < common; i++) if (a[i] !== b[i]) return a.codePointAt(i)! - b.codePointAt(i)!;
  return a.length - b.length;
}
