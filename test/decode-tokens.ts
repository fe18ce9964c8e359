/** Decoding by the code that answers prompts, without a model around it: a runner, and what drafts for it. */
import { AnswerDrafts, Drafting } from "../src/engine/drafting/drafting.ts";
import { NgramDraft } from "../src/engine/drafting/ngram-draft.ts";
import { type GenerateOptions, type GenerationResult, generate } from "../src/engine/generation.ts";
import type { ModelRunner } from "../src/engine/model-runner.ts";

/** Drafts of these lengths, whatever comes of them: what a test counts must not hang on what its machine does meanwhile. */
export function draftingOf(source: ConstructorParameters<typeof Drafting>[0], next?: () => number): Drafting {
  const drafting = new Drafting(source);
  const length = { next: next ?? (() => drafting.mostTokens), verified() {}, acceptance: 0.5 };
  return Object.assign(drafting, {
    follow: (tokenIds: readonly number[]) => {
      const ngram = source === "ngram" ? new NgramDraft(tokenIds) : undefined;
      return new AnswerDrafts(length, ngram, () => {});
    },
  });
}

export async function decodeTokens(
  runner: ModelRunner,
  prompt: readonly number[],
  options: GenerateOptions & { readonly maxTokens: number },
  drafting: Drafting = new Drafting("off"),
): Promise<GenerationResult> {
  using sequence = runner.createSequence();
  const setting = { runner, drafting, tokenizer: undefined, sequence, eosTokenIds: new Set<number>() };
  const events = generate(
    { ...setting, maxTokens: options.maxTokens },
    { tokenIds: prompt, parse: undefined },
    options,
  );
  for await (const event of events) if (event.type === "end") return event.result;
  throw new Error("The answer did not end");
}
