/**
 * One request while the engine has it: its tokens, how the next one is chosen, and what is told of it. It computes nothing itself;
 * it takes rows of logits and says which tokens they gave.
 */
import { FreeholdError } from "../../errors.ts";
import type { AnswerDrafts, Drafting, WantedDraft } from "../drafting/drafting.ts";
import { draftChoice } from "../generation.ts";
import type { Sequence } from "../model-runner.ts";
import type { Pacer } from "../pacer.ts";
import { Sampler } from "../sampling/sampler.ts";
import { TokenHistory } from "../sampling/token-history.ts";
import { isContentId } from "../vision/content-ids.ts";
import { AllowedStarts } from "./allowed-starts.ts";
import type { EngineEvent, EngineRequest, EngineUsage, TokenLogprob } from "./engine-port.ts";
import { drawnLogprob, tokenLogprob } from "./token-logprobs.ts";

export type Finish = "stop" | "length" | "cancelled";

export class Answer {
  readonly request: EngineRequest;
  /** The scheduler's name for it: never used twice, unlike a client's id. */
  readonly serial: string;
  readonly listener: (event: EngineEvent) => void;
  /** Prompt and answer. */
  readonly tokenIds: number[];
  /** Tokens that prompt and answer may have together. */
  readonly mostTokens: number;
  /** Undefined while the request waits. */
  sequence: Sequence | undefined;
  /** Tokens that are expected to follow, to be verified in the next step. */
  draft: readonly number[] = [];
  finish: Finish | undefined;
  isCancelled = false;
  /** Of a cancelled one that is whole all the same: the tokens of the answer that are worth remembering. */
  keptTokens: number | undefined;
  /** Its listener failed. */
  isDeaf = false;
  readonly wantsPromptLogprobs: boolean;
  readonly #sampler: Sampler;
  readonly #history: TokenHistory;
  readonly #allowed: AllowedStarts;
  readonly #stopTokens: ReadonlySet<number>;
  readonly #promptLogprobs: TokenLogprob[] = [];
  readonly #drafts: AnswerDrafts;
  /** What the listener has not heard yet. */
  #newIds: number[] = [];
  #newLogprobs: TokenLogprob[] = [];
  #cachedTokens: number | undefined;
  readonly #submittedMs: number;
  #startedMs: number | undefined;
  #firstTokenMs: number | undefined;

  /** Throws a RequestError for sampling options that make no sense. */
  constructor(request: EngineRequest, serial: string, setting: AnswerSetting) {
    const { tokenIds, generated, sampling, beginsWith, stopTokenIds } = request;
    this.request = request;
    this.serial = serial;
    this.listener = setting.listener;
    this.tokenIds = [...tokenIds, ...generated];
    this.mostTokens = Math.min(tokenIds.length + request.maxTokens, setting.contextLength);
    // The prompt's were told before the first token.
    this.wantsPromptLogprobs = request.promptLogprobs !== undefined && generated.length === 0;
    this.#sampler = new Sampler(sampling);
    this.#history = new TokenHistory(tokenIds.filter((id) => !isContentId(id)));
    this.#allowed = new AllowedStarts(beginsWith ?? [[]]);
    this.#stopTokens = new Set(stopTokenIds);
    this.#drafts = setting.drafting.follow(this.tokenIds);
    this.#submittedMs = setting.nowMs;
    for (const id of generated) {
      this.#history.push(id);
      this.#allowed.push(id);
    }
    this.#finishAfter(generated.at(-1));
  }

  get hasStarted(): boolean {
    return this.#startedMs !== undefined;
  }

  /** Drafts that were verified. */
  get draftCount(): number {
    return this.#drafts.drafts;
  }

  get generatedTokens(): number {
    return this.#history.length;
  }

  /** Tokens whose cached state it can use: all, or as many as it has the log probabilities of. */
  get resumableTokens(): readonly number[] {
    return this.wantsPromptLogprobs ? this.tokenIds.slice(0, this.#promptLogprobs.length + 1) : this.tokenIds;
  }

  /** It has a sequence. Returns whether for the first time. */
  start(sequence: Sequence, nowMs: number): boolean {
    this.sequence = sequence;
    if (this.#cachedTokens !== undefined) return false;
    this.#cachedTokens = Math.min(sequence.length, this.request.tokenIds.length);
    this.#startedMs = nowMs;
    return true;
  }

  /** Rows of logits that a step of `tokens` known and `drafted` further tokens is to give. */
  outputsOf(tokens: number, drafted: number): number {
    if (this.wantsPromptLogprobs && this.generatedTokens === 0) return tokens;
    return this.sequence!.length + tokens === this.tokenIds.length ? 1 + drafted : 0;
  }

  /**
   * Takes the rows of a step that computed the sequence up to where it is now, `draft` behind the known tokens. Afterwards the
   * sequence holds all tokens but the last.
   */
  async take(rows: readonly Float32Array[], draft: readonly number[], pacer: Pacer, nowMs: number): Promise<void> {
    const sequence = this.sequence!;
    const known = sequence.length - draft.length;
    if (known >= this.request.tokenIds.length) sequence.forgetImages();
    if (this.wantsPromptLogprobs && this.generatedTokens === 0) await this.#takePrompt(rows, known, pacer);
    if (known !== this.tokenIds.length || rows.length === 0) return;
    const accepted = await this.#sampleAll(rows.slice(-1 - draft.length), draft, pacer);
    this.#firstTokenMs ??= nowMs;
    this.#drafts.verified(draft.length, accepted);
    if (accepted < draft.length) sequence.rewind(draft.length - accepted);
  }

  /** Samples while the draft turns out right; returns how many tokens of it did. */
  async #sampleAll(rows: readonly Float32Array[], draft: readonly number[], pacer: Pacer): Promise<number> {
    for (const [i, row] of rows.entries()) {
      await pacer.pause();
      const id = this.#sample(row);
      if (this.finish !== undefined || id !== draft[i]) return i;
    }
    return draft.length;
  }

  #sample(row: Float32Array): number {
    checkNumbers(row);
    const masked = this.#allowed.mask(row);
    const id = this.#sampler.sample(masked, this.#history);
    this.#tellLogprob(row, masked, id);
    this.#history.push(id);
    this.#allowed.push(id);
    this.tokenIds.push(id);
    this.#newIds.push(id);
    this.#finishAfter(id);
    return id;
  }

  #tellLogprob(row: Float32Array, masked: Float32Array, id: number): void {
    const { logprobs, logprobsOf } = this.request;
    if (logprobs === undefined) return;
    const logprob =
      logprobsOf === "sampling"
        ? drawnLogprob(this.#sampler.candidates(masked, this.#history), id, logprobs)
        : tokenLogprob(row, id, logprobs);
    this.#newLogprobs.push(logprob);
  }

  #finishAfter(id: number | undefined): void {
    if (id !== undefined && this.#stopTokens.has(id)) this.finish = "stop";
    else if (this.tokenIds.length >= this.mostTokens) this.finish = "length";
  }

  /** Row i is of position `known - rows.length + i` and speaks of the token after it. */
  async #takePrompt(rows: readonly Float32Array[], known: number, pacer: Pacer): Promise<void> {
    const { tokenIds, promptLogprobs = 0 } = this.request;
    for (const [i, row] of rows.entries()) {
      const position = known - rows.length + i + 1;
      if (position >= tokenIds.length || position <= this.#promptLogprobs.length) continue;
      await pacer.pause();
      checkNumbers(row);
      this.#promptLogprobs.push(tokenLogprob(row, tokenIds[position]!, promptLogprobs));
    }
  }

  /** What a draft for its next step needs; undefined where it cannot use one. */
  get wantedDraft(): WantedDraft | undefined {
    const { sequence, tokenIds } = this;
    if (sequence === undefined || this.finish !== undefined || this.isCancelled || !this.#allowed.isComplete)
      return undefined;
    if (sequence.length !== tokenIds.length - 1 || this.generatedTokens === 0) return undefined; // still in its prompt
    const room = this.mostTokens - tokenIds.length - 1;
    const choose = draftChoice(this.#sampler, this.#history);
    return { drafts: this.#drafts, sequence, anchor: tokenIds.at(-1)!, room, choose };
  }

  /** What is new since it was asked last, for the listener. */
  *news(): Iterable<EngineEvent> {
    const { tokenIds } = this.request;
    const computed = this.sequence?.length ?? 0;
    if (this.generatedTokens === 0)
      yield { type: "prefill", done: Math.min(computed, tokenIds.length), total: tokenIds.length };
    if (this.#newIds.length === 0) return;
    if (this.wantsPromptLogprobs && this.#newIds.length === this.generatedTokens)
      yield { type: "promptLogprobs", logprobs: this.#promptLogprobs };
    const [ids, logprobs] = [this.#newIds, this.#newLogprobs];
    this.#newIds = [];
    this.#newLogprobs = [];
    yield this.request.logprobs === undefined ? { type: "tokens", ids } : { type: "tokens", ids, logprobs };
  }

  usage(nowMs: number): EngineUsage {
    const started = this.#startedMs ?? nowMs;
    const first = this.#firstTokenMs ?? nowMs;
    return {
      promptTokens: this.request.tokenIds.length,
      cachedTokens: this.#cachedTokens ?? 0,
      generatedTokens: this.generatedTokens,
      draftedTokens: this.#drafts.drafted,
      acceptedTokens: this.#drafts.accepted,
      seconds: {
        queue: (started - this.#submittedMs) / 1000,
        prefill: Math.max(0, first - started) / 1000,
        decode: Math.max(0, nowMs - Math.max(first, started)) / 1000,
      },
    };
  }

  /** Gives its memory back. */
  release(): void {
    this.sequence?.[Symbol.dispose]();
    this.sequence = undefined;
    this.draft = [];
  }
}

export interface AnswerSetting {
  readonly listener: (event: EngineEvent) => void;
  readonly contextLength: number;
  readonly drafting: Drafting;
  readonly nowMs: number;
}

/** Throws for logits that are not all numbers: something is broken, and what would be drawn from the rest is no answer. */
function checkNumbers(row: Float32Array): void {
  let sum = 0;
  for (const logit of row) sum += logit * 0;
  if (sum === 0) return;
  throw new FreeholdError("The model gave logits that are not numbers", {
    code: "engine_error",
    hint: "The weights are damaged, or the device computes wrongly; freehold doctor tests it",
  });
}
