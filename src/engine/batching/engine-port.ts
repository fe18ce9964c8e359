/**
 * What a gateway asks of an engine, wherever that runs: in this process, in a child, or a scripted one in tests. A request is
 * token ids in, token ids out; text, markers and stop strings are the gateway's. All of it is plain data that a pipe can carry.
 */
import { FreeholdError } from "../../errors.ts";
import type { SamplingOptions } from "../sampling/sampling-options.ts";

export interface EnginePort {
  /** Undefined while the model loads. */
  readonly info: EngineInfo | undefined;
  /** Starts a request; the listener hears every event of it, and `end` or `error` exactly once, last. */
  submit(request: EngineRequest, listener: (event: EngineEvent) => void): void;
  /**
   * Ends a request within a step, and mostly within a layer of it (running-step.ts); its listener still hears the end (finish
   * "cancelled"). Unknown ids are ignored. With `keptTokens` the answer is whole (a stop string, the end of its calls): what was
   * computed of its prompt and so many tokens of it is remembered.
   */
  cancel(id: string, keptTokens?: number): void;
  /** A request is on its way: an engine that sleeps may load its model already. */
  wake?(): void;
  /** What the engine told last. */
  readonly status: EngineStatus;
  /**
   * Decodes an image of a prompt, away from who asks, and gives the tokens that stand for it. Rejects with an EngineError for what
   * cannot be read. Absent, or refused: the engine reads no images (`info.images`).
   */
  prepareImage?(source: string): Promise<RequestImage>;
}

/** What an engine makes of an image; one that reads none refuses it. */
export async function prepareImage(engine: EnginePort | undefined, source: string): Promise<RequestImage> {
  if (engine?.prepareImage !== undefined) return engine.prepareImage(source);
  throw new EngineError({
    code: "unsupported_image",
    message: "The engine reads no images",
    hint: "Send text only",
    isRetryable: false,
  });
}

/** An image that an engine has decoded. It forgets what nobody uses: then a request with it fails as "image-lost". */
export interface RequestImage {
  /** A base64 data: URL. Stays with who asks, to give it again to the next engine. */
  readonly source: string;
  readonly tokenIds: readonly number[];
}

/** Images as the model's files and the settings of the engine have them. */
export interface ImageInfo {
  /** Images of a request at most. */
  readonly most: number;
  /** Bytes of a file at most. */
  readonly maxBytes: number;
  /** The token that holds an image's place in a prompt. */
  readonly tokenId: number;
}

/** What a gateway must know of the model that the engine runs. */
export interface EngineInfo {
  /** Name that clients see. */
  readonly name: string;
  readonly vocabSize: number;
  /** Tokens that prompt and answer may have together. */
  readonly contextLength: number;
  readonly bosTokenId: number;
  readonly eosTokenIds: readonly number[];
  /** Whether raw text gets a begin-of-sequence token in front. */
  readonly addsBeginOfSequence: boolean;
  readonly defaults: {
    readonly temperature?: number;
    readonly topP?: number;
    readonly topK?: number;
    readonly maxTokens?: number;
  };
  readonly device: string;
  readonly kernels: string;
  readonly threads: number;
  /** What guesses tokens ahead: "off", "ngram", "mtp" or "dspark". */
  readonly drafter?: string;
  readonly parameters: number;
  readonly loadSeconds: number;
  /** Undefined for a model that reads none. */
  readonly images?: ImageInfo;
}

export interface EngineRequest {
  readonly id: string;
  /** The whole prompt. */
  readonly tokenIds: readonly number[];
  /** The images whose tokens are in the prompt. */
  readonly images?: readonly RequestImage[];
  /**
   * Tokens of the answer that an engine gave before it died: they are computed like a prompt and not sent again; sampling goes on
   * as if nothing had happened.
   */
  readonly generated: readonly number[];
  /** With a seed: the same request gives the same tokens in every engine. */
  readonly sampling: SamplingOptions & { readonly seed: number };
  /** Tokens of the answer at most, `generated` among them. */
  readonly maxTokens: number;
  /** Tokens that end the answer; they are the last of it. */
  readonly stopTokenIds: readonly number[];
  /** Log probabilities of each token of the answer, with this many alternatives (0 to 20). */
  readonly logprobs?: number;
  /** Of what: the model's own distribution (default), or what a token was drawn from, after penalties, temperature and cuts. */
  readonly logprobsOf?: "model" | "sampling";
  /** The same for the tokens of the prompt, all but the first. */
  readonly promptLogprobs?: number;
  /** The answer begins with one of these token sequences; after it anything may follow. Undefined: no constraint. */
  readonly beginsWith?: readonly (readonly number[])[];
  /** Whose request it is, for fairness. */
  readonly key: string;
  /** 0 is served first, then 1, 2 ... Default 1. */
  readonly priority: number;
  /** Computed prefixes are shared within a namespace only. */
  readonly namespace: string;
}

export type EngineEvent =
  /** Left the queue: tokens of the prompt (and of `generated`) that were already computed. */
  | { readonly type: "started"; readonly cachedTokens: number }
  /** Tokens of the prompt that are computed so far. */
  | { readonly type: "prefill"; readonly done: number; readonly total: number }
  | { readonly type: "promptLogprobs"; readonly logprobs: readonly TokenLogprob[] }
  | { readonly type: "tokens"; readonly ids: readonly number[]; readonly logprobs?: readonly TokenLogprob[] }
  | { readonly type: "end"; readonly finish: "stop" | "length" | "cancelled"; readonly usage: EngineUsage }
  | { readonly type: "error"; readonly error: EngineFailure };

export interface TokenLogprob {
  readonly id: number;
  readonly logprob: number;
  /** The most probable ones, the greatest first. */
  readonly top: readonly { readonly id: number; readonly logprob: number }[];
}

export interface EngineUsage {
  readonly promptTokens: number;
  readonly cachedTokens: number;
  readonly generatedTokens: number;
  /** Tokens that a draft proposed, and those that turned out right. */
  readonly draftedTokens: number;
  readonly acceptedTokens: number;
  readonly seconds: { readonly queue: number; readonly prefill: number; readonly decode: number };
}

export interface EngineFailure {
  /** "engine_died", "engine_error", "overloaded" ... or the code of a FreeholdError. */
  readonly code: string;
  readonly message: string;
  readonly hint?: string;
  readonly isRetryable: boolean;
}

/** A failure as an exception. */
export class EngineError extends FreeholdError {
  readonly failure: EngineFailure;

  constructor(failure: EngineFailure) {
    const { code, message, hint } = failure;
    super(message, { code, ...(hint === undefined ? {} : { hint }) });
    this.failure = failure;
  }
}

/** A snapshot that the engine sends at least once a second, and after each step that changes it much. */
export interface EngineStatus {
  readonly state: "loading" | "ready" | "draining" | "dead" | "sleeping" | "waking";
  /** Share of the weights that is loaded, 0 to 1. */
  readonly loaded: number;
  /** Steps done since the start. */
  readonly steps: number;
  /** Milliseconds of `performance.timeOrigin + performance.now()` at the last step or idle tick. */
  readonly heartbeatMs: number;
  readonly running: number;
  readonly waiting: number;
  readonly counters: EngineCounters;
}

/** Totals since the start of the engine process. */
export interface EngineCounters {
  readonly promptTokens: number;
  readonly cachedTokens: number;
  readonly generatedTokens: number;
  /** Drafts that were verified, with their tokens. */
  readonly drafts: number;
  readonly draftedTokens: number;
  readonly acceptedTokens: number;
  readonly preemptions: number;
  readonly stepSeconds: number;
  readonly cache: CacheCounters;
  /** Of a model with an n-gram memory. */
  readonly engram?: EngramCounters;
}

export interface EngramCounters {
  /** Rows that steps asked for, and those of them that were in memory. */
  readonly lookups: number;
  readonly hits: number;
  /** Rows that were read from the files, ahead of their step or not, in how many batches. */
  readonly rowsRead: number;
  readonly batches: number;
  readonly readBytes: number;
  readonly memoryBytes: number;
}

export interface CacheCounters {
  /** Requests that asked the prefix cache, and those that found something. */
  readonly lookups: number;
  readonly hits: number;
  readonly memoryBytes: number;
  readonly memoryBudgetBytes: number;
  readonly evictions: number;
  readonly diskBytes: number;
  readonly diskBudgetBytes: number;
  readonly diskReadBytes: number;
  readonly diskWrittenBytes: number;
  /** Records whose checksum did not fit: each counted as a miss. */
  readonly corruptRecords: number;
  readonly diskState: "on" | "off" | "read-only";
}

/** What requests add up to. */
export type RequestTotals = Pick<
  EngineCounters,
  "promptTokens" | "cachedTokens" | "generatedTokens" | "drafts" | "draftedTokens" | "acceptedTokens"
>;

export const noRequests: RequestTotals = {
  promptTokens: 0,
  cachedTokens: 0,
  generatedTokens: 0,
  drafts: 0,
  draftedTokens: 0,
  acceptedTokens: 0,
};

/** Of an engine without a prefix cache. */
export const noCache: CacheCounters = {
  lookups: 0,
  hits: 0,
  memoryBytes: 0,
  memoryBudgetBytes: 0,
  evictions: 0,
  diskBytes: 0,
  diskBudgetBytes: 0,
  diskReadBytes: 0,
  diskWrittenBytes: 0,
  corruptRecords: 0,
  diskState: "off",
};
