/**
 * One answer: prefill the prompt, then sample token after token, and read the output as it comes into reasoning, content and
 * tool calls. Events are given out as soon as they are certain; the last one carries the result.
 */
import type { Delta, ParsedMessage, ParseOptions } from "../chat/output-parser.ts";
import type { Tokenizer } from "../tokenizer/tokenizer.ts";
import type { ModelRunner, Sequence } from "./model-runner.ts";
import { OutputReader } from "./output-reader.ts";
import { Sampler } from "./sampling/sampler.ts";
import type { SamplingOptions } from "./sampling/sampling-options.ts";
import { TokenHistory } from "./sampling/token-history.ts";
import { isContentId } from "./vision/content-ids.ts";

export interface GenerateOptions extends SamplingOptions {
  /** Tokens to generate at most. Default: what the model's generation_config.json says, else what the context has room for. */
  readonly maxTokens?: number;
  /** Strings that end the answer; they are not part of it. */
  readonly stop?: readonly string[];
  /** Go on after an end-of-sequence token. */
  readonly ignoreEos?: boolean;
  /** Ends the generation, within the time that one layer of a step takes, by throwing the signal's reason. */
  readonly signal?: AbortSignal;
  /** Hears how many tokens of the prompt are computed. */
  readonly onPrefill?: (done: number, total: number) => void;
}

export type GenerationEvent = Delta | { readonly type: "end"; readonly result: GenerationResult };

export interface GenerationResult extends Omit<ParsedMessage, "finish" | "content"> {
  /** The answer without reasoning and tool calls. */
  readonly text: string;
  readonly finishReason: ParsedMessage["finish"];
  /** All generated tokens, an end-of-sequence token among them. */
  readonly tokenIds: readonly number[];
  readonly promptTokens: number;
  /** Tokens of the prompt that the session had computed before. */
  readonly cachedTokens: number;
  /** The seed in use, given or drawn. */
  readonly seed: number;
  readonly seconds: { readonly prefill: number; readonly decode: number };
}

/** A prompt in token ids, and how its answer is read; `parse` is undefined for text that has no structure. */
export interface EncodedPrompt {
  readonly tokenIds: readonly number[];
  readonly parse: ParseOptions | undefined;
}

export interface GenerationSetting {
  readonly runner: ModelRunner;
  /** Without one the answer is token ids and its text empty. */
  readonly tokenizer: Tokenizer | undefined;
  readonly sequence: Sequence;
  readonly eosTokenIds: ReadonlySet<number>;
  readonly maxTokens: number;
}

export async function* generate(
  { runner, tokenizer, sequence, eosTokenIds, maxTokens }: GenerationSetting,
  prompt: EncodedPrompt,
  options: GenerateOptions,
): AsyncGenerator<GenerationEvent, void, undefined> {
  const sampler = new Sampler(options);
  const reader = new OutputReader(tokenizer, prompt.parse, options.stop ?? []);
  const history = new TokenHistory(prompt.tokenIds.filter((id) => !isContentId(id)));
  const started = performance.now();

  const cachedTokens = sequence.keep(commonPrefix(sequence.tokenIds, prompt.tokenIds.slice(0, -1)));
  const rest = prompt.tokenIds.slice(cachedTokens);
  const step = { ...(options.signal ? { signal: options.signal } : {}) };
  let [logits] = await runner.append(
    { sequence, tokenIds: rest, outputs: 1 },
    { ...step, onStep: (done) => options.onPrefill?.(cachedTokens + done, prompt.tokenIds.length) },
  );
  const prefilled = performance.now();

  const tokenIds: number[] = [];
  let finish: "stop" | "length" = "length";
  while (tokenIds.length < maxTokens) {
    const id = sampler.sample(logits!, history);
    history.push(id);
    tokenIds.push(id);
    if (eosTokenIds.has(id) && !options.ignoreEos) {
      finish = "stop";
      break;
    }
    yield* reader.push(id);
    if (reader.isDone) {
      finish = "stop";
      break;
    }
    if (tokenIds.length < maxTokens) [logits] = await runner.append({ sequence, tokenIds: [id], outputs: 1 }, step);
  }
  const { deltas, message } = reader.end(finish);
  yield* deltas;
  yield {
    type: "end",
    result: {
      text: message.content,
      reasoning: message.reasoning,
      toolCalls: message.toolCalls,
      complete: message.complete,
      finishReason: message.finish,
      tokenIds,
      promptTokens: prompt.tokenIds.length,
      cachedTokens,
      seed: sampler.seed,
      seconds: { prefill: (prefilled - started) / 1000, decode: (performance.now() - prefilled) / 1000 },
    },
  };
}

export function commonPrefix(a: readonly number[], b: readonly number[]): number {
  let length = 0;
  while (length < a.length && length < b.length && a[length] === b[length]) length++;
  return length;
}
