/**
 * The names under which llama-server tells its numbers, for dashboards that were made for it. Rates are of what ended since the last
 * reading, as there.
 */
import { Counter, Gauge, type Registry } from "prom-client";
import type { EnginePort, EngineUsage } from "../../engine/batching/engine-port.ts";

interface Window {
  tokens: number;
  seconds: number;
}

export class LlamaMetrics {
  readonly #registers: Registry[];
  #promptSeconds = 0;
  #predictedSeconds = 0;
  #longest = 0;
  readonly #prompt: Window = { tokens: 0, seconds: 0 };
  readonly #predicted: Window = { tokens: 0, seconds: 0 };

  constructor(engine: EnginePort, registry: Registry) {
    this.#registers = [registry];
    const counters = () => engine.status.counters;
    const computed = () => counters().promptTokens - counters().cachedTokens;
    this.#total("prompt_tokens_total", "Tokens of prompts that were computed", computed);
    this.#total("prompt_tokens_cached_total", "Tokens of prompts that were known", () => counters().cachedTokens);
    this.#total("prompt_seconds_total", "Time until first tokens", () => this.#promptSeconds);
    this.#total("tokens_predicted_total", "Tokens of answers", () => counters().generatedTokens);
    this.#total("tokens_predicted_seconds_total", "Time from first tokens on", () => this.#predictedSeconds);
    this.#total("n_decode_total", "Steps of the model", () => engine.status.steps);
    this.#total("n_tokens_max", "Tokens of the longest prompt with its answer", () => this.#longest);
    this.#total("spec_decode_num_drafts_total", "Drafts that were verified", () => counters().drafts);
    this.#total("spec_decode_num_draft_tokens_total", "Tokens that were guessed", () => counters().draftedTokens);
    this.#total(
      "spec_decode_num_accepted_tokens_total",
      "Of them those that were right",
      () => counters().acceptedTokens,
    );
    this.#gauge("prompt_tokens_seconds", "Tokens of prompts a second", () => rate(this.#prompt));
    this.#gauge("predicted_tokens_seconds", "Tokens of answers a second", () => rate(this.#predicted));
    this.#gauge("requests_processing", "Requests in the batch", () => engine.status.running);
    this.#gauge("requests_deferred", "Requests in the queue", () => engine.status.waiting);
  }

  ended({ promptTokens, cachedTokens, generatedTokens, seconds }: EngineUsage): void {
    this.#promptSeconds += seconds.prefill;
    this.#predictedSeconds += seconds.decode;
    this.#longest = Math.max(this.#longest, promptTokens + generatedTokens);
    add(this.#prompt, promptTokens - cachedTokens, seconds.prefill);
    // The first token comes with the prompt.
    add(this.#predicted, generatedTokens - 1, seconds.decode);
  }

  /** A counter that is counted elsewhere. */
  #total(name: string, help: string, read: () => number): void {
    new Counter({
      name: `llamacpp:${name}`,
      help,
      registers: this.#registers,
      collect() {
        this.reset();
        this.inc(read());
      },
    });
  }

  #gauge(name: string, help: string, read: () => number): void {
    new Gauge({
      name: `llamacpp:${name}`,
      help,
      registers: this.#registers,
      collect() {
        this.set(read());
      },
    });
  }
}

function add(window: Window, tokens: number, seconds: number): void {
  window.tokens += Math.max(0, tokens);
  window.seconds += seconds;
}

/** Of what the window holds, which is empty afterwards. */
function rate(window: Window): number {
  const { tokens, seconds } = window;
  window.tokens = 0;
  window.seconds = 0;
  return seconds > 0 ? tokens / seconds : 0;
}
