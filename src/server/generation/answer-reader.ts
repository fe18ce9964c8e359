/**
 * From the tokens of one answer to what a client is told. Beyond the reader of the engine it keeps calls in order: names that
 * no tool has are repaired or become text, arguments that were cut are closed, only as many calls as asked for are given out.
 *   const reader = new AnswerReader(tokenizer, plan);  show(reader.push(id));  show(reader.end("stop"));  reader.result
 */

import { dsml, endOfThinking } from "../../chat/markers.ts";
import type { Delta, FinishReason, ParsedMessage, ParseOptions } from "../../chat/output-parser.ts";
import type { PromptPart } from "../../chat/prompt.ts";
import type { TokenLogprob } from "../../engine/batching/engine-port.ts";
import { OutputReader } from "../../engine/output-reader.ts";
import { isJson } from "../../json/is-json.ts";
import type { StreamDecoder } from "../../tokenizer/stream-decoder.ts";
import type { Tokenizer } from "../../tokenizer/tokenizer.ts";
import { closeArguments } from "./close-json.ts";
import { describeToken, type TokenText, WaitingTokens } from "./token-logprobs.ts";
import { repairToolName } from "./tool-names.ts";
import type { RememberedCall } from "./turn-memory.ts";

export interface AnswerPlan {
  /** Undefined for text that has no structure. */
  readonly parse: ParseOptions | undefined;
  readonly stop: readonly string[];
  readonly stopTokenIds: ReadonlySet<number>;
  /** Names that calls may have. */
  readonly toolNames: ReadonlySet<string>;
  readonly maxCalls: number;
  /** What of the answer stands in the prompt already. */
  readonly opened: readonly PromptPart[];
}

export type AnswerDelta =
  | { readonly type: "reasoning" | "content"; readonly text: string; readonly tokens?: readonly TokenText[] }
  | Extract<Delta, { type: "toolCall" | "toolArguments" }>;

export interface AnswerResult {
  readonly finish: FinishReason;
  readonly stopString: string | undefined;
  readonly reasoning: string;
  readonly content: string;
  readonly calls: readonly RememberedCall[];
  readonly generatedTokens: number;
  readonly reasoningTokens: number;
  /** As the model gave them, one that ended the answer among them. */
  readonly tokenIds: readonly number[];
  /** All that was written behind the reasoning, where nothing of it was cut or repaired. */
  readonly verbatim: readonly PromptPart[] | undefined;
  /** The reasoning with the newlines around it, which clients do not get. */
  readonly writtenReasoning: string;
}

interface OpenCall {
  readonly id: string;
  /** Its place among the calls that are given out; undefined for a call that becomes text. */
  readonly index: number | undefined;
  readonly name: string;
  arguments: string;
}

export class AnswerReader {
  readonly #tokenizer: Tokenizer;
  readonly #plan: AnswerPlan;
  readonly #reader: OutputReader;
  readonly #decoder: StreamDecoder;
  readonly #waiting: Record<"reasoning" | "content", WaitingTokens>;
  readonly #calls: OpenCall[] = [];
  readonly #tokenIds: number[] = [];
  readonly #reasoned: number[] = [];
  readonly #written: number[] = [];
  readonly #callsText: number[] = [];
  #reasoning = "";
  #content = "";
  #reasoningTokens = 0;
  #isStopped = false;
  /** One call more than was asked for came: it and what follows counts for nothing. */
  #isCut = false;
  #isIntact = true;
  #result: AnswerResult | undefined;

  constructor(tokenizer: Tokenizer, plan: AnswerPlan) {
    this.#tokenizer = tokenizer;
    this.#plan = plan;
    this.#reader = new OutputReader(tokenizer, plan.parse, plan.stop);
    this.#decoder = tokenizer.createDecoder();
    const start = plan.parse?.start ?? "contentContinuation";
    this.#waiting = {
      reasoning: new WaitingTokens(start === "reasoning"),
      content: new WaitingTokens(start === "content" || start.startsWith("reasoning")),
    };
  }

  /** Nothing that follows belongs to the answer. */
  get isDone(): boolean {
    return this.#isStopped || this.#isCut || this.#reader.isDone;
  }

  get generatedTokens(): number {
    return this.#tokenIds.length;
  }

  /** What the answer is; known after `end`. */
  get result(): AnswerResult {
    if (this.#result === undefined) throw new Error("The answer has not ended");
    return this.#result;
  }

  push(id: number, logprob?: TokenLogprob): AnswerDelta[] {
    if (this.isDone) return [];
    this.#tokenIds.push(id);
    const { section } = this.#reader;
    if (section === "reasoning") this.#reasoningTokens++;
    if (this.#plan.stopTokenIds.has(id)) {
      this.#isStopped = true;
      return [];
    }
    this.#keep(id, section);
    const isMarker = this.#plan.parse !== undefined && this.#isMarker(id);
    if (logprob !== undefined && !isMarker && (section === "reasoning" || section === "content"))
      this.#waiting[section].push(describeToken(this.#tokenizer, logprob), this.#decoder.push(id));
    return this.#shape(this.#reader.push(id));
  }

  /** The output is over: the deltas that were held back. */
  end(finish: "stop" | "length"): AnswerDelta[] {
    const reason = this.isDone ? "stop" : finish;
    const { deltas, message } = this.#reader.end(reason);
    const out = this.#isCut ? [] : this.#finishCalls(deltas, message);
    const calls = this.#calls.filter(({ index }) => index !== undefined);
    this.#result = {
      finish: reason === "length" ? "length" : calls.length > 0 ? "tool_calls" : "stop",
      stopString: this.#reader.stopString,
      reasoning: this.#reasoning,
      content: this.#content,
      calls: calls.map(({ id, name, arguments: text }) => ({ id, name, arguments: text })),
      generatedTokens: this.#tokenIds.length,
      reasoningTokens: this.#reasoningTokens,
      tokenIds: this.#tokenIds,
      writtenReasoning: this.#isIntact ? this.#tokenizer.decode(this.#reasoned) : this.#reasoning,
      verbatim: this.#isIntact && message.complete && reason === "stop" ? this.#verbatim() : undefined,
    };
    return out;
  }

  #finishCalls(deltas: readonly Delta[], message: ParsedMessage): AnswerDelta[] {
    const streamed = this.#calls.at(-1)?.arguments ?? "";
    const out = this.#shape(message.complete ? deltas : deltas.filter(({ type }) => type !== "toolArguments"));
    if (!message.complete) this.#closeCall(streamed, deltas, out);
    this.#giveUpUnknown(out);
    if (message.toolCalls.length === 0) this.#showBrokenCalls(out);
    return out;
  }

  #isMarker(id: number): boolean {
    return id === this.#tokenizer.tokenId(dsml) || id === this.#tokenizer.tokenId(endOfThinking);
  }

  /** Remembers tokens of the reasoning, those behind it, and those of the block of calls. */
  #keep(id: number, section: OutputReader["section"]): void {
    if (section === "reasoning") {
      // Calls may open within reasoning; such an answer is rendered anew, not replayed.
      if (id === this.#tokenizer.tokenId(dsml)) this.#isIntact = false;
      if (!this.#isMarker(id)) this.#reasoned.push(id);
      return;
    }
    this.#written.push(id);
    if (section === "calls" || id === this.#tokenizer.tokenId(dsml)) this.#callsText.push(id);
  }

  #shape(deltas: readonly Delta[]): AnswerDelta[] {
    const out: AnswerDelta[] = [];
    for (const delta of deltas) {
      switch (delta.type) {
        case "reasoning":
        case "content":
          this.#show(delta.type, delta.text, out);
          break;
        case "toolCall":
          this.#startCall(delta.id, delta.name, out);
          break;
        case "toolArguments":
          this.#addArguments(delta.text, out);
          break;
        default:
          delta satisfies never;
      }
      if (this.#isCut) break;
    }
    return out;
  }

  #show(type: "reasoning" | "content", text: string, out: AnswerDelta[]): void {
    if (type === "reasoning") this.#reasoning += text;
    else this.#content += text;
    // Around JSON text is dropped, so that characters cannot be counted: what waits goes with the text that comes.
    const tokens = this.#waiting[type].show(this.#plan.parse?.json ? Number.POSITIVE_INFINITY : text.length);
    out.push({ type, text, ...(tokens.length > 0 ? { tokens } : {}) });
  }

  #startCall(id: string, written: string, out: AnswerDelta[]): void {
    this.#giveUpUnknown(out);
    const name = repairToolName(written, this.#plan.toolNames);
    const given = this.#calls.filter(({ index }) => index !== undefined).length;
    if (given >= this.#plan.maxCalls) {
      this.#isCut = true;
      this.#isIntact = false;
      return;
    }
    if (name !== written) this.#isIntact = false;
    const index = name === undefined ? undefined : given;
    this.#calls.push({ id, index, name: name ?? written, arguments: "" });
    if (index !== undefined) out.push({ type: "toolCall", index, id, name: name! });
  }

  #addArguments(text: string, out: AnswerDelta[]): void {
    const call = this.#calls.at(-1);
    if (call === undefined || text === "") return;
    call.arguments += text;
    if (call.index !== undefined) out.push({ type: "toolArguments", index: call.index, text });
  }

  /** The output was cut within a call: what the client has of its arguments becomes JSON. */
  #closeCall(streamed: string, deltas: readonly Delta[], out: AnswerDelta[]): void {
    const call = this.#calls.at(-1);
    if (call === undefined || isJson(call.arguments)) return;
    const rest = deltas.map((delta) => (delta.type === "toolArguments" ? delta.text : "")).join("");
    this.#addArguments(closeArguments(streamed, rest), out);
  }

  /** A call of a tool that does not exist: shown as text, once it is whole. */
  #giveUpUnknown(out: AnswerDelta[]): void {
    const call = this.#calls.at(-1);
    if (call === undefined || call.index !== undefined) return;
    this.#calls.pop();
    this.#show("content", `${call.name}(${call.arguments})`, out);
  }

  /** A block that was opened and holds no call is shown as it was written, without its markers. */
  #showBrokenCalls(out: AnswerDelta[]): void {
    if (this.#plan.parse?.inToolCalls || !this.#callsText.some((id) => !this.#isMarker(id))) return;
    const text = this.#callsText.filter((id) => !this.#isMarker(id));
    this.#isIntact = false;
    this.#show("content", this.#tokenizer.decode(text), out);
  }

  #verbatim(): PromptPart[] {
    const parts: PromptPart[] = [...this.#plan.opened];
    let run: number[] = [];
    const flush = () => {
      if (run.length > 0) parts.push({ text: this.#tokenizer.decode(run) });
      run = [];
    };
    for (const id of this.#written) {
      if (!this.#isMarker(id)) {
        run.push(id);
        continue;
      }
      flush();
      parts.push({ special: id === this.#tokenizer.tokenId(dsml) ? dsml : endOfThinking });
    }
    flush();
    return parts;
  }
}
