/**
 * Where the drafts of a model's answers come from, and what came of them. A draft never changes an answer: the model computes its
 * tokens as it would have anyway, several in one step, and what it would not have chosen is wound back.
 */
import { DeviceError } from "../../errors.ts";
import type { Sequence } from "../model-runner.ts";
import { DraftCosts } from "./draft-costs.ts";
import { DraftLength } from "./draft-length.ts";
import type { DraftRequest, ModelDrafter } from "./model-drafter.ts";
import { NgramDraft } from "./ngram-draft.ts";

/** What may be asked for: "auto" is the model's own module where it has one, else n-grams. */
export const draftings = ["auto", "off", "ngram", "mtp", "dspark"] as const;
export type DraftingName = (typeof draftings)[number];

export type DrafterKind = "off" | "ngram" | ModelDrafter["kind"];

/** Tokens of a draft from the text itself. */
const mostLookedUp = 8;

export class Drafting {
  readonly kind: DrafterKind;
  /** Tokens of a draft at most. */
  readonly mostTokens: number;
  /** Of steps and drafts; whoever makes the steps tells it of them. */
  readonly costs: DraftCosts;
  #module: ModelDrafter | undefined;
  /** Of all answers so far: what a new one expects. */
  #acceptance: number | undefined;

  constructor(source: "off" | "ngram" | ModelDrafter) {
    this.#module = typeof source === "string" ? undefined : source;
    this.kind = typeof source === "string" ? source : source.kind;
    this.mostTokens = this.#module?.mostTokens ?? (source === "ngram" ? mostLookedUp : 0);
    this.costs = new DraftCosts(this.#module?.isChained ?? true);
  }

  /** The drafts of one answer; `tokenIds`, prompt and answer, grow behind its back. */
  follow(tokenIds: readonly number[]): AnswerDrafts {
    const length = new DraftLength(this.mostTokens, this.costs, this.#acceptance);
    const ngram = this.kind === "ngram" ? new NgramDraft(tokenIds) : undefined;
    return new AnswerDrafts(length, ngram, (acceptance) => this.#learn(acceptance));
  }

  /** For each answer the tokens that may follow; what a module drafts is computed for all together. */
  async propose(wanted: readonly WantedDraft[], mostTokens = this.mostTokens): Promise<number[][]> {
    const most = Math.min(mostTokens, this.mostTokens);
    const counts = wanted.map(({ drafts, room }) =>
      Math.max(0, Math.min(room, drafts.length.next(wanted.length), most)),
    );
    const module = this.#module;
    if (module === undefined) return wanted.map(({ drafts }, i) => drafts.ngram?.propose(counts[i]!) ?? []);
    const longest = Math.max(0, ...counts);
    if (longest === 0) return wanted.map(() => []);
    const requests = wanted.flatMap((draft, i): DraftRequest[] =>
      counts[i] === 0 ? [] : [{ ...draft, count: counts[i]! }],
    );
    const started = performance.now();
    const drafted = await this.#guarded(() => module.draft(requests));
    if (drafted === undefined) return wanted.map(() => []);
    this.costs.draft(longest, performance.now() - started);
    return counts.map((count) => (count === 0 ? [] : drafted.shift()!));
  }

  /** Whatever is wrong with a module that drafts, answers come without it; only a lost device is told. */
  async #guarded(draft: () => Promise<number[][]>): Promise<number[][] | undefined> {
    try {
      return await draft();
    } catch (error) {
      if (error instanceof DeviceError && lostDevice.includes(error.code)) throw error;
      this.#module = undefined;
      process.emitWarning(`Drafting is switched off: ${error instanceof Error ? error.message : String(error)}`);
      return undefined;
    }
  }

  #learn(acceptance: number): void {
    this.#acceptance = this.#acceptance === undefined ? acceptance : 0.95 * this.#acceptance + 0.05 * acceptance;
  }
}

/** Codes of errors after which no step can be computed either. */
const lostDevice: readonly string[] = ["device-process", "disposed", "file-changed"];

/** An answer that could use a draft. */
export interface WantedDraft {
  readonly drafts: AnswerDrafts;
  readonly sequence: Sequence;
  readonly anchor: number;
  /** Tokens that the answer may still get behind the anchor and the token that follows the draft. */
  readonly room: number;
  readonly choose: DraftRequest["choose"];
}

type Lengths = Pick<DraftLength, "next" | "verified" | "acceptance">;

/** What was drafted for one answer. */
export class AnswerDrafts {
  readonly length: Lengths;
  readonly ngram: NgramDraft | undefined;
  /** Drafts that were verified, their tokens, and those that were right. */
  drafts = 0;
  drafted = 0;
  accepted = 0;
  readonly #learn: (acceptance: number) => void;

  constructor(length: Lengths, ngram: NgramDraft | undefined, learn: (acceptance: number) => void) {
    this.length = length;
    this.ngram = ngram;
    this.#learn = learn;
  }

  verified(drafted: number, accepted: number): void {
    if (drafted === 0) return;
    this.drafts++;
    this.drafted += drafted;
    this.accepted += accepted;
    this.length.verified(drafted, accepted);
    this.#learn(this.length.acceptance);
  }
}
