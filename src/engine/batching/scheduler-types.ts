/** What the scheduler hears and says: plain data, so that a run can be written to a file and played again. */

export type SchedulerEvent =
  | { readonly type: "time"; readonly nowMs: number }
  | { readonly type: "submit"; readonly request: ScheduledRequest }
  /** A request that was to start has its sequence, which holds so many tokens already. */
  | { readonly type: "started"; readonly id: string; readonly cachedTokens: number }
  /** The step is done: what it lasted, and where each of its requests stands now. */
  | { readonly type: "step"; readonly milliseconds: number; readonly progress: readonly Progress[] }
  /** The request has ended, for whatever reason; unknown ids are ignored. */
  | { readonly type: "end"; readonly id: string };

export interface ScheduledRequest {
  /** Never used twice. */
  readonly id: string;
  /** Whose it is. */
  readonly key: string;
  /** 0 goes first. */
  readonly priority: number;
  readonly promptTokens: number;
  /** Tokens of prompt and answer that are known when it is submitted. */
  readonly length: number;
  /** Tokens that prompt and answer may have together. */
  readonly mostTokens: number;
  /** Fingerprints of the prompt's blocks (prefix-blocks.ts). */
  readonly blocks: readonly number[];
  /** Logits of every token of the prompt are wanted: its chunks stay small. */
  readonly wantsAllLogits: boolean;
}

export interface Progress {
  readonly id: string;
  /** Tokens in the cache. */
  readonly computed: number;
  /** Tokens of prompt and answer; the last one of a running answer is not computed yet. */
  readonly length: number;
  /** Tokens that a draft proposes to follow. */
  readonly draft: number;
}

export interface StepPlan {
  /** Requests to take out: what they computed is to be remembered. They wait again. */
  readonly preempt: readonly string[];
  /** Requests that get a sequence; they take part in a step once they are `started`. */
  readonly start: readonly string[];
  readonly parts: readonly PlannedPart[];
}

export interface PlannedPart {
  readonly id: string;
  /** Known tokens to compute. */
  readonly tokens: number;
  /** Drafted tokens to verify behind them. */
  readonly draft: number;
  /** Remember the sequence after the step: others will go on from here. */
  readonly remember: boolean;
}

export interface SchedulerOptions {
  /** Tokens a step may hold. */
  readonly maxStepTokens: number;
  /** Tokens that share an entry of the model's indexer: what bounds a step behind a long context. */
  readonly tokensPerScore: number;
  /** Requests that may run at the same time; at most maxStepTokens. */
  readonly maxRunning: number;
  /** Rows of logits a step may ask for, beside one a sequence. */
  readonly maxPromptLogits: number;
  /** Drafted tokens a step may hold, all requests together. */
  readonly maxDraftTokens: number;
  /** Bytes that the caches of all running requests may take. One request runs whatever it takes. */
  readonly cacheBytes: number;
  /** What a sequence takes: a fixed part, and a part for each token. */
  readonly bytesPerSequence: number;
  readonly bytesPerToken: number;
  /** Share of the tokens that an answer may still get that is reserved when a request is admitted. */
  readonly reservedShare: number;
  /** Whether a prefix that one request computes can be used by another. */
  readonly sharesPrefixes: boolean;
  /** A request waits at most so long for another one to compute their common prefix. */
  readonly sharingPatienceMs: number;
  /** A request of a key with less than its share displaces one of a key with more after so long. */
  readonly fairnessPatienceMs: number;
  /** Waiting that is worth one priority class. */
  readonly agingMs: number;
}

/** All but what a sequence of the model takes. */
export const schedulerDefaults = {
  maxStepTokens: 512,
  tokensPerScore: 4,
  maxRunning: 64,
  maxPromptLogits: 128,
  maxDraftTokens: 32,
  cacheBytes: 2 ** 30,
  reservedShare: 0.5,
  sharesPrefixes: true,
  sharingPatienceMs: 30_000,
  fairnessPatienceMs: 2000,
  agingMs: 30_000,
} as const;
