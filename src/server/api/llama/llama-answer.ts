/** One answer of llama-server's completion: gathered token by token, given out as parts and as a whole. */
import type { EngineUsage } from "../../../engine/batching/engine-port.ts";
import type { Tokenizer } from "../../../tokenizer/tokenizer.ts";
import type { AnswerDelta, AnswerResult } from "../../generation/answer-reader.ts";
import type { AnswerToken } from "../../generation/run-answers.ts";
import { describeToken, type TokenText } from "../../generation/token-logprobs.ts";
import { finiteLogprob } from "../chat/chat-encoder.ts";
import type { LlamaGenerationBody } from "../schemas/llama.ts";
import type { LlamaSettings } from "./generation-settings.ts";
import { TimingClock } from "./llama-timings.ts";

export interface LlamaAnswerParts {
  readonly index: number;
  readonly promptIds: readonly number[];
  readonly model: string;
  readonly body: LlamaGenerationBody;
  readonly settings: LlamaSettings;
  readonly tokenizer: Tokenizer;
  readonly nowMs: () => number;
}

export class LlamaAnswer {
  readonly #parts: LlamaAnswerParts;
  readonly #clock: TimingClock;
  #content = "";
  #ids: number[] = [];
  #tokens: TokenText[] = [];
  /** Of the parts that were given out. */
  #shown = { characters: 0, ids: 0, tokens: 0 };
  #isOutOfTime = false;
  #result: AnswerResult | undefined;

  constructor(parts: LlamaAnswerParts) {
    this.#parts = parts;
    this.#clock = new TimingClock(parts.promptIds.length, parts.nowMs);
  }

  started(cachedTokens: number): void {
    this.#clock.started(cachedTokens);
  }

  prefilled(tokens: number): void {
    this.#clock.prefilled(tokens);
  }

  token({ id, logprob, deltas }: AnswerToken): "enough" | undefined {
    this.#clock.token();
    if (this.#parts.settings.nPredict === 0) return undefined;
    this.#ids.push(id);
    if (logprob !== undefined) this.#tokens.push(describeToken(this.#parts.tokenizer, logprob));
    this.#add(deltas);
    this.#isOutOfTime = this.#isTimeUp();
    return this.#isOutOfTime ? "enough" : undefined;
  }

  end(result: AnswerResult, usage: EngineUsage | undefined): void {
    // What was held back because it might have become a stop string.
    if (this.#parts.settings.nPredict !== 0) this.#content = result.content;
    this.#result = result;
    if (usage !== undefined) this.#clock.drafts(usage.draftedTokens, usage.acceptedTokens);
  }

  /** How far the prompt is; undefined when nothing was computed since it was asked last. */
  progress(): object | undefined {
    const prompt_progress = this.#clock.newProgress();
    return prompt_progress && { ...this.#head([]), content: "", prompt_progress };
  }

  /** What came since the last part; undefined while no text is certain. */
  part(): object | undefined {
    const content = this.#content.slice(this.#shown.characters);
    if (content === "") return undefined;
    const tokens = this.#ids.slice(this.#shown.ids);
    const probabilities = this.#tokens.slice(this.#shown.tokens);
    this.#shown = { characters: this.#content.length, ids: this.#ids.length, tokens: this.#tokens.length };
    return { ...this.#head(tokens), content, ...this.#probabilities(probabilities) };
  }

  /** The last part of a stream: everything but the text. */
  close(): object {
    return { ...this.#summary(), content: "", tokens: [] };
  }

  whole(): object {
    const tokens = this.#parts.body.return_tokens ? this.#ids : [];
    return { ...this.#summary(), content: this.#content, tokens, ...this.#probabilities(this.#tokens) };
  }

  #add(deltas: readonly AnswerDelta[]): void {
    for (const delta of deltas) if (delta.type === "content") this.#content += delta.text;
  }

  /** As llama-server counts it: from the first token on, and only once there is a line to end. */
  #isTimeUp(): boolean {
    const limit = this.#parts.body.t_max_predict_ms ?? 0;
    return limit > 0 && this.#clock.predictedMs > limit && this.#content.includes("\n");
  }

  #head(tokens: readonly number[]) {
    const { index, promptIds, body } = this.#parts;
    return {
      index,
      tokens,
      stop: false,
      id_slot: body.id_slot ?? -1,
      tokens_predicted: this.#predicted,
      tokens_evaluated: promptIds.length,
      ...(body.timings_per_token ? { timings: this.#clock.timings } : {}),
    };
  }

  #summary() {
    const { index, promptIds, model, settings, body, tokenizer } = this.#parts;
    return {
      index,
      id_slot: body.id_slot ?? -1,
      stop: true,
      model,
      tokens_predicted: this.#predicted,
      tokens_evaluated: promptIds.length,
      generation_settings: settings.told,
      prompt: tokenizer.decode(promptIds),
      has_new_line: this.#content.includes("\n"),
      truncated: this.#isTruncated,
      stop_type: this.#stopType,
      stopping_word: this.#result?.stopString ?? "",
      tokens_cached: promptIds.length + this.#predicted,
      timings: this.#clock.timings,
    };
  }

  /** The token that nobody asked for is not told. */
  get #predicted(): number {
    return this.#parts.settings.nPredict === 0 ? 0 : this.#clock.predictedTokens;
  }

  get #stopType(): "eos" | "limit" | "word" | "none" {
    if (this.#result === undefined) return "none";
    if (this.#result.stopString !== undefined) return "word";
    return this.#result.finish === "stop" && this.#parts.settings.nPredict !== 0 ? "eos" : "limit";
  }

  /** The context ended the answer. */
  get #isTruncated(): boolean {
    const asked = this.#parts.settings.nPredict ?? Number.POSITIVE_INFINITY;
    return this.#stopType === "limit" && !this.#isOutOfTime && this.#predicted < asked;
  }

  #probabilities(tokens: readonly TokenText[]): object {
    const { settings, body } = this.#parts;
    if (settings.nProbs === 0) return {};
    const write = body.post_sampling_probs ? probability : logProbability;
    const top = body.post_sampling_probs ? "top_probs" : "top_logprobs";
    return { completion_probabilities: tokens.map((token) => ({ ...write(token), [top]: token.top.map(write) })) };
  }
}

type Described = Omit<TokenText, "top">;

function logProbability({ id, token, bytes, logprob }: Described): object {
  return { id, token, bytes, logprob: finiteLogprob(logprob) };
}

function probability({ id, token, bytes, logprob }: Described): object {
  return { id, token, bytes, prob: Math.exp(logprob) };
}
