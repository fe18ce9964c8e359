/**
 * One answer: prefill the prompt, then sample token after token, and read the output as it comes into reasoning, content and
 * tool calls. Events are given out as soon as they are certain; the last one carries the result.
 */
import type { Delta, ParsedMessage, ParseOptions } from "../chat/output-parser.ts";
import type { Tokenizer } from "../tokenizer/tokenizer.ts";
import type { DrafterKind, Drafting } from "./drafting/drafting.ts";
import type { DraftRequest } from "./drafting/model-drafter.ts";
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
  /** Tokens that were guessed ahead, and those that were right; `steps` of the model gave the answer. */
  readonly drafts: {
    readonly drafter: DrafterKind;
    readonly drafted: number;
    readonly accepted: number;
    readonly steps: number;
  };
  readonly seconds: { readonly prefill: number; readonly decode: number };
}

/** A prompt in token ids, and how its answer is read; `parse` is undefined for text that has no structure. */
export interface EncodedPrompt {
  readonly tokenIds: readonly number[];
  readonly parse: ParseOptions | undefined;
}

export interface GenerationSetting {
  readonly runner: ModelRunner;
  readonly drafting: Drafting;
  /** Without one the answer is token ids and its text empty. */
  readonly tokenizer: Tokenizer | undefined;
  readonly sequence: Sequence;
  readonly eosTokenIds: ReadonlySet<number>;
  readonly maxTokens: number;
}

export async function* generate(
  { runner, drafting, tokenizer, sequence, eosTokenIds, maxTokens }: GenerationSetting,
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
  let rows = await runner.append(
    { sequence, tokenIds: rest, outputs: 1 },
    { ...step, onStep: (done) => options.onPrefill?.(cachedTokens + done, prompt.tokenIds.length) },
  );
  const prefilled = performance.now();

  const all = [...prompt.tokenIds];
  const drafts = drafting.follow(all);
  let draft: readonly number[] = [];
  let steps = 1;
  let finish: "stop" | "length" | undefined;
  const tokenIds: number[] = [];
  while (finish === undefined) {
    const ids = chooseAll(rows, draft, sampler, history);
    drafts.verified(draft.length, ids.length - 1);
    sequence.rewind(draft.length - (ids.length - 1));
    for (const id of ids) {
      tokenIds.push(id);
      all.push(id);
      const isEnd = eosTokenIds.has(id) && !options.ignoreEos;
      if (!isEnd) yield* reader.push(id);
      if (isEnd || reader.isDone) finish = "stop";
      else if (tokenIds.length >= maxTokens) finish = "length";
      if (finish !== undefined) break;
    }
    if (finish !== undefined) break;
    const anchor = tokenIds.at(-1)!;
    const room = maxTokens - tokenIds.length - 1;
    const choose = draftChoice(sampler, history);
    [draft = []] = await drafting.propose([{ drafts, sequence, anchor, room, choose }]);
    const stepped = performance.now();
    rows = await runner.append({ sequence, tokenIds: [anchor, ...draft], outputs: 1 + draft.length }, step);
    drafting.costs.step(1 + draft.length, performance.now() - stepped);
    steps++;
  }
  // Drafted tokens behind the end of the answer: the sequence holds the answer but for its last token.
  sequence.rewind(Math.max(0, sequence.length - (all.length - 1)));
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
      drafts: { drafter: drafting.kind, drafted: drafts.drafted, accepted: drafts.accepted, steps },
      seconds: { prefill: (prefilled - started) / 1000, decode: (performance.now() - prefilled) / 1000 },
    },
  };
}

/**
 * The tokens that the rows of a step give: that behind its first token, and while the draft turns out right those behind it. Each row
 * is sampled as it would be alone, so that a draft changes nothing.
 */
function chooseAll(
  rows: readonly Float32Array[],
  draft: readonly number[],
  sampler: Sampler,
  history: TokenHistory,
): number[] {
  const ids: number[] = [];
  for (const [i, row] of rows.entries()) {
    const id = sampler.sample(row, history);
    history.push(id);
    ids.push(id);
    if (id !== draft[i]) break;
  }
  return ids;
}

/** How a drafted token is chosen: as the answer will choose there. */
export function draftChoice(sampler: Sampler, history: TokenHistory): DraftRequest["choose"] {
  return (logits, drafted) => {
    for (const id of drafted) history.push(id);
    try {
      return sampler.sample(logits, history);
    } finally {
      history.rewind(drafted.length);
    }
  };
}

export function commonPrefix(a: readonly number[], b: readonly number[]): number {
  let length = 0;
  while (length < a.length && length < b.length && a[length] === b[length]) length++;
  return length;
}
