/** The options of `run` and `chat` that say how an answer is generated and shown. */
import { type Command, Option } from "commander";
import { StopStrings } from "../chat/stop-strings.ts";
import type { GenerateOptions, GenerationResult } from "../engine/generation.ts";
import { resolveSamplingOptions } from "../engine/sampling/sampling-options.ts";
import { withoutUndefined } from "../engine/without-undefined.ts";
import { RequestError, UsageError } from "../errors.ts";
import { number, wholeNumber } from "./model-options.ts";

export interface AnswerOptions {
  readonly system?: string;
  readonly think: "off" | "low" | "high" | "max";
  readonly maxTokens?: number;
  readonly temperature?: number;
  readonly topP?: number;
  readonly topK?: number;
  readonly minP?: number;
  readonly repetitionPenalty?: number;
  readonly frequencyPenalty?: number;
  readonly presencePenalty?: number;
  readonly stop?: string[];
  readonly ignoreEos?: boolean;
  readonly seed?: number;
}

export function withAnswerOptions(target: Command): Command {
  return target
    .option("--system <text>", "system message")
    .addOption(
      new Option("--think <level>", "reasoning before the answer")
        .choices(["off", "low", "high", "max"])
        .default("off"),
    )
    .option("--max-tokens <n>", "tokens to generate at most", wholeNumber(1))
    .option("--temperature <t>", "0 always takes the most probable token", number)
    .option("--top-p <p>", "only the most probable tokens of this sum", number)
    .option("--top-k <k>", "only the k most probable tokens", wholeNumber(0))
    .option("--min-p <p>", "only tokens at least this fraction as probable as the first", number)
    .option("--repetition-penalty <x>", "divide the logits of tokens that were there", number)
    .option("--frequency-penalty <x>", "subtract for each time a token was generated", number)
    .option("--presence-penalty <x>", "subtract once for a token that was generated", number)
    .option("--stop <text>", "end the answer before this text (may be repeated)", (text, list: string[] = []) => [
      ...list,
      text,
    ])
    .option("--ignore-eos", "go on after the end of the answer");
}

export function generateOptions(options: AnswerOptions): GenerateOptions {
  const { maxTokens, temperature, topP, topK, minP, stop, ignoreEos, seed } = options;
  const { repetitionPenalty, frequencyPenalty, presencePenalty } = options;
  const all = { maxTokens, temperature, topP, topK, minP, stop, ignoreEos, seed };
  const given = { ...all, repetitionPenalty, frequencyPenalty, presencePenalty };
  const chosen: GenerateOptions = withoutUndefined(given);
  checkOptions(chosen);
  return chosen;
}

/** What the engine would refuse is wrong usage here, and is said before a model is loaded. */
function checkOptions(options: GenerateOptions): void {
  try {
    resolveSamplingOptions(options);
    new StopStrings(options.stop ?? []);
  } catch (error) {
    if (!(error instanceof RequestError)) throw error;
    throw new UsageError(error.message, { ...(error.hint === undefined ? {} : { hint: error.hint }), cause: error });
  }
}

/** The request of a conversation, with the options that concern its prompt. */
export function chatRequest(messages: readonly object[], { system, think }: AnswerOptions) {
  return {
    messages: system === undefined ? messages : [{ role: "system", content: system }, ...messages],
    thinking: { type: think === "off" ? "disabled" : "enabled" },
    ...(think === "off" ? {} : { reasoning_effort: think }),
  };
}

/** The JSON document of an answer. */
export function answerJson(result: GenerationResult, loadSeconds: number) {
  return {
    text: result.text,
    reasoning: result.reasoning,
    tool_calls: result.toolCalls.map(({ id, name, arguments: text }) => ({ id, name, arguments: text })),
    token_ids: result.tokenIds,
    prompt_tokens: result.promptTokens,
    cached_tokens: result.cachedTokens,
    generated_tokens: result.tokenIds.length,
    finish_reason: result.finishReason,
    seed: result.seed,
    draft: {
      drafter: result.drafts.drafter,
      drafted: result.drafts.drafted,
      accepted: result.drafts.accepted,
      tokens_per_step: result.tokenIds.length / result.drafts.steps,
    },
    seconds: { load: loadSeconds, prefill: result.seconds.prefill, decode: result.seconds.decode },
  };
}
