/**
 * freehold bench --draft: answers to one prompt with a drafter and without, in turns, so that what else the machine does meets both
 * alike. Greedy, so both give the same tokens.
 */

import type { GenerationResult } from "../engine/generation.ts";
import type { Model, PromptInput } from "../engine/model.ts";
import { DeviceError } from "../errors.ts";
import { median } from "./median.ts";

export interface DraftingReport {
  readonly drafter: string;
  readonly tokens: number;
  readonly median_of: number;
  readonly plain_tokens_per_second: number;
  readonly tokens_per_second: number;
  /** Times plain decoding. */
  readonly gain: number;
  readonly drafted: number;
  readonly accepted: number;
  /** Drafted tokens that were right, in each step of the answer. */
  readonly accepted_per_step: number;
  readonly tokens_per_step: number;
}

export interface DraftingBench {
  readonly prompt: string | undefined;
  readonly generateTokens: number;
  readonly runs: number;
}

export async function benchDrafting(
  plain: Model,
  drafting: Model,
  { prompt, generateTokens, runs }: DraftingBench,
  signal: AbortSignal,
): Promise<DraftingReport> {
  const input = promptFor(plain, prompt);
  const answer = (model: Model) =>
    model.complete(input, { temperature: 0, maxTokens: generateTokens, ignoreEos: true, signal });
  const seconds: { plain: number[]; drafting: number[] } = { plain: [], drafting: [] };
  let last: GenerationResult | undefined;
  // The first run of each is not counted: it compiles steps and learns what drafts are worth.
  for (let run = -1; run < runs; run++) {
    const [without, result] = [await answer(plain), await answer(drafting)];
    if (String(without.tokenIds) !== String(result.tokenIds))
      throw new DeviceError("Drafting changed the answer", { code: "drafting", hint: "Report this with the model" });
    if (run < 0) continue;
    seconds.plain.push(without.seconds.decode);
    seconds.drafting.push(result.seconds.decode);
    last = result;
  }
  const { tokenIds, drafts } = last!;
  const speeds = [median(seconds.plain), median(seconds.drafting)].map((time) => tokenIds.length / time);
  return {
    drafter: drafts.drafter,
    tokens: tokenIds.length,
    median_of: runs,
    plain_tokens_per_second: speeds[0]!,
    tokens_per_second: speeds[1]!,
    gain: speeds[1]! / speeds[0]!,
    drafted: drafts.drafted,
    accepted: drafts.accepted,
    accepted_per_step: drafts.accepted / drafts.steps,
    tokens_per_step: tokenIds.length / drafts.steps,
  };
}

export function printDrafting(report: DraftingReport): string {
  const { drafter, plain_tokens_per_second: plain, tokens_per_second: speed, gain, drafted, accepted } = report;
  return `drafting  ${plain.toFixed(1)} -> ${speed.toFixed(1)} tokens/s with ${drafter}, ${gain.toFixed(2)} times; ${accepted} of ${drafted} drafted tokens right, ${report.accepted_per_step.toFixed(2)} a step`;
}

/** A question to a model that reads text, else some ids with a pattern in them. */
function promptFor(model: Model, text = "Tell me a story about a lighthouse keeper and the sea."): PromptInput {
  if (!model.hasTokenizer)
    return Array.from({ length: 60 }, (_, i) => (i * 17 + ((i * i) % 7)) % model.config.vocabSize);
  return { messages: [{ role: "user", content: text }], thinking: { type: "disabled" } };
}
