/** One choice of a completion: text and log probabilities gathered, given out in parts or as a whole. */
import type { TokenLogprob } from "../../../engine/batching/engine-port.ts";
import type { Tokenizer } from "../../../tokenizer/tokenizer.ts";
import type { AnswerDelta, AnswerResult } from "../../generation/answer-reader.ts";
import { describeToken } from "../../generation/token-logprobs.ts";
import type { Completion, CompletionBody, CompletionChunk } from "../schemas/completions.ts";
import type { CompletionPrompt } from "./completion-prompts.ts";
import { legacyLogprobs, type ScoredToken } from "./legacy-logprobs.ts";

type Part = CompletionChunk["choices"][number];

export class CompletionChoice {
  readonly #index: number;
  readonly #body: CompletionBody;
  readonly #prompt: CompletionPrompt;
  readonly #tokenizer: Tokenizer;
  #text: string;
  #tokens: ScoredToken[] = [];
  /** Characters of tokens that were given out. */
  #offset = 0;
  #finish: Part["finish_reason"] = null;

  constructor(index: number, prompt: CompletionPrompt, body: CompletionBody, tokenizer: Tokenizer) {
    this.#index = index;
    this.#prompt = prompt;
    this.#body = body;
    this.#tokenizer = tokenizer;
    this.#text = body.echo ? prompt.text : "";
  }

  /** The log probabilities of the prompt: all tokens but the first. */
  scorePrompt(logprobs: readonly TokenLogprob[]): void {
    const [first] = this.#prompt.tokenIds;
    const begin = { ...describeToken(this.#tokenizer, { id: first!, logprob: 0, top: [] }), logprob: undefined };
    this.#tokens.push(begin, ...logprobs.map((one) => describeToken(this.#tokenizer, one)));
  }

  add(deltas: readonly AnswerDelta[]): void {
    if (this.#body.max_tokens === 0) return;
    for (const delta of deltas) {
      if (delta.type !== "content") continue;
      this.#text += delta.text;
      this.#tokens.push(...(delta.tokens ?? []));
    }
  }

  finish(finish: AnswerResult["finish"]): void {
    this.#finish = finish === "stop" && this.#body.max_tokens !== 0 ? "stop" : "length";
  }

  /** What came since the last part; undefined when nothing did. */
  part(): Part | undefined {
    if (this.#text === "" && this.#finish === null) return undefined;
    const part = { index: this.#index, text: this.#text, logprobs: this.#logprobs(), finish_reason: this.#finish };
    this.#text = "";
    this.#tokens = [];
    return part;
  }

  whole(): Completion["choices"][number] {
    return { index: this.#index, text: this.#text, logprobs: this.#logprobs(), finish_reason: this.#finish ?? "stop" };
  }

  #logprobs(): Part["logprobs"] {
    if (this.#body.logprobs === undefined) return null;
    const offset = this.#offset;
    this.#offset += this.#tokens.reduce((sum, { token }) => sum + token.length, 0);
    return legacyLogprobs(this.#tokens, this.#body.logprobs, offset);
  }
}
