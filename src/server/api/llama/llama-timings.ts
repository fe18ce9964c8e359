/** The `timings` of an answer in llama-server's shape: measured here, from the engine's start of the request. */

export interface LlamaTimings {
  readonly cache_n: number;
  /** Tokens of the prompt that were computed: not those that were cached. */
  readonly prompt_n: number;
  readonly prompt_ms: number;
  readonly prompt_per_token_ms: number;
  readonly prompt_per_second: number;
  readonly predicted_n: number;
  readonly predicted_ms: number;
  readonly predicted_per_token_ms: number;
  readonly predicted_per_second: number;
  readonly draft_n?: number;
  readonly draft_n_accepted?: number;
}

export class TimingClock {
  readonly #nowMs: () => number;
  readonly #promptTokens: number;
  #startedMs: number | undefined;
  #promptMs = 0;
  #firstTokenMs: number | undefined;
  #predictedMs = 0;
  #cached = 0;
  #computed = 0;
  #predicted = 0;
  #toldProgress = -1;
  #drafts: { readonly drafted: number; readonly accepted: number } | undefined;

  constructor(promptTokens: number, nowMs: () => number) {
    this.#promptTokens = promptTokens;
    this.#nowMs = nowMs;
  }

  /** `prompt_progress`; undefined when nothing was computed since it was asked last. */
  newProgress(): { total: number; cache: number; processed: number; time_ms: number } | undefined {
    const processed = this.#cached + this.#computed;
    if (processed === this.#toldProgress) return undefined;
    this.#toldProgress = processed;
    const time_ms = this.#nowMs() - (this.#startedMs ?? this.#nowMs());
    return { total: this.#promptTokens, cache: this.#cached, processed, time_ms };
  }

  get predictedTokens(): number {
    return this.#predicted;
  }

  get predictedMs(): number {
    return this.#predictedMs;
  }

  started(cachedTokens: number): void {
    this.#startedMs = this.#nowMs();
    this.#cached = cachedTokens;
  }

  prefilled(tokens: number): void {
    this.#computed = Math.max(this.#computed, tokens - this.#cached);
    this.#promptMs = this.#nowMs() - (this.#startedMs ?? this.#nowMs());
  }

  token(): void {
    const now = this.#nowMs();
    if (this.#firstTokenMs === undefined) {
      this.prefilled(this.#promptTokens);
      this.#firstTokenMs = now;
    }
    this.#predicted++;
    this.#predictedMs = now - this.#firstTokenMs;
  }

  drafts(drafted: number, accepted: number): void {
    if (drafted > 0) this.#drafts = { drafted, accepted };
  }

  get timings(): LlamaTimings {
    // The first token comes with the prompt: rates are over the steps that followed.
    const steps = Math.max(0, this.#predicted - 1);
    return {
      cache_n: this.#cached,
      prompt_n: this.#computed,
      prompt_ms: this.#promptMs,
      prompt_per_token_ms: ratio(this.#promptMs, this.#computed),
      prompt_per_second: ratio(1000 * this.#computed, this.#promptMs),
      predicted_n: this.#predicted,
      predicted_ms: this.#predictedMs,
      predicted_per_token_ms: ratio(this.#predictedMs, steps),
      predicted_per_second: steps === 0 ? 0 : ratio(1000, this.#predictedMs) * steps,
      ...(this.#drafts && { draft_n: this.#drafts.drafted, draft_n_accepted: this.#drafts.accepted }),
    };
  }
}

function ratio(part: number, whole: number): number {
  return whole > 0 ? part / whole : 0;
}
