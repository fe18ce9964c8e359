/**
 * Answers of an engine, several at once: submits requests, reads their tokens, tells a listener what came of it, and cancels
 * what is not needed any more. Each request ends once: by the engine, a stop string, an error or the client.
 */
import type {
  EngineEvent,
  EngineFailure,
  EngineRequest,
  EngineUsage,
  RequestImage,
  TokenLogprob,
} from "../../engine/batching/engine-port.ts";
import type { SamplingOptions } from "../../engine/sampling/sampling-options.ts";
import { resolveSamplingOptions } from "../../engine/sampling/sampling-options.ts";
import { HttpError } from "../http-error.ts";
import type { Call, Services } from "../route.ts";
import { type AnswerDelta, type AnswerPlan, AnswerReader, type AnswerResult } from "./answer-reader.ts";

export interface AnswerJob {
  readonly tokenIds: readonly number[];
  readonly images?: readonly RequestImage[];
  readonly plan: AnswerPlan;
  readonly sampling: SamplingOptions & { readonly seed: number };
  readonly maxTokens: number;
  readonly logprobs: number | undefined;
  readonly logprobsOf?: "model" | "sampling";
  readonly promptLogprobs: number | undefined;
  readonly beginsWith: readonly (readonly number[])[] | undefined;
  /** The first of those that share a prompt: the prompt is counted once. */
  readonly countsPrompt: boolean;
}

export interface AnswerListener {
  /** Every request that left the queue. */
  started?(index: number, cachedTokens: number): void;
  promptLogprobs?(index: number, logprobs: readonly TokenLogprob[]): void;
  /** Tokens of the prompt that are computed so far. */
  prefill?(index: number, done: number, total: number): void;
  /** Each token by itself, before the deltas of all that came with it. "enough" ends the answer here, as too long. */
  token?(index: number, token: AnswerToken): "enough" | undefined;
  deltas(index: number, deltas: readonly AnswerDelta[]): void;
  /** `usage` is the engine's; undefined for an answer that ended here, at a stop string. */
  end(index: number, result: AnswerResult, usage: EngineUsage | undefined): void;
}

export interface AnswerToken {
  readonly id: number;
  readonly logprob: TokenLogprob | undefined;
  /** What it and those before it made certain. */
  readonly deltas: readonly AnswerDelta[];
}

export interface AnswerUsage {
  readonly promptTokens: number;
  readonly cachedTokens: number;
  readonly generatedTokens: number;
  readonly reasoningTokens: number;
}

/** Throws (rejects with) an HttpError for a failure of the engine, or the reason of the call's signal. */
export async function runAnswers(
  call: Call,
  { engine, tokenizer }: Services,
  jobs: readonly AnswerJob[],
  listener: AnswerListener,
): Promise<AnswerUsage> {
  for (const { sampling } of jobs) resolveSamplingOptions(sampling);
  const sum = (of: (job: AnswerJob) => number) => jobs.reduce((total, job) => total + of(job), 0);
  call.signal.throwIfAborted();
  call.admit({ prompt: sum((job) => job.tokenIds.length), generated: sum((job) => job.maxTokens) });
  const runs = jobs.map((job, index) => new Run(job, index, call, new AnswerReader(tokenizer, job.plan), listener));
  const usage = (): AnswerUsage => ({
    promptTokens: sum((job) => (job.countsPrompt ? job.tokenIds.length : 0)),
    cachedTokens: runs.reduce((total, run) => total + (run.job.countsPrompt ? run.cachedTokens : 0), 0),
    generatedTokens: runs.reduce((total, run) => total + run.generatedTokens, 0),
    reasoningTokens: runs.reduce((total, run) => total + run.reasoningTokens, 0),
  });
  try {
    await Promise.all(runs.map((run) => run.start(engine)));
    return usage();
  } finally {
    for (const run of runs) run.abandon();
    const { promptTokens, cachedTokens, generatedTokens } = usage();
    call.account({ prompt: promptTokens, cached: cachedTokens, generated: generatedTokens });
  }
}

class Run {
  readonly job: AnswerJob;
  readonly #index: number;
  readonly #call: Call;
  readonly #reader: AnswerReader;
  readonly #listener: AnswerListener;
  readonly #settled = Promise.withResolvers<void>();
  #cancel: ((keptTokens?: number) => void) | undefined;
  #isOver = false;
  cachedTokens = 0;
  generatedTokens = 0;
  reasoningTokens = 0;

  constructor(job: AnswerJob, index: number, call: Call, reader: AnswerReader, listener: AnswerListener) {
    this.job = job;
    this.#index = index;
    this.#call = call;
    this.#reader = reader;
    this.#listener = listener;
  }

  async start(engine: Services["engine"]): Promise<void> {
    const id = `${this.#call.requestId}.${this.#index}`;
    const onAbort = () => this.#fail(this.#call.signal.reason);
    this.#call.signal.addEventListener("abort", onAbort);
    this.#cancel = (keptTokens) => engine.cancel(id, keptTokens);
    try {
      engine.submit(this.#request(id), (event) => this.#hear(event));
      await this.#settled.promise;
    } finally {
      this.#call.signal.removeEventListener("abort", onAbort);
    }
  }

  /** Ends what still runs when a sibling failed: nothing that still comes is heard. */
  abandon(): void {
    this.#isOver = true;
    this.#stopEngine();
    this.#settled.resolve();
  }

  #stopEngine(keptTokens?: number): void {
    this.#cancel?.(keptTokens);
    this.#cancel = undefined;
  }

  #request(id: string): EngineRequest {
    const {
      tokenIds,
      images = [],
      sampling,
      maxTokens,
      plan,
      logprobs,
      logprobsOf,
      promptLogprobs,
      beginsWith,
    } = this.job;
    return {
      id,
      tokenIds,
      ...(images.length === 0 ? {} : { images }),
      generated: [],
      sampling,
      maxTokens,
      stopTokenIds: [...plan.stopTokenIds],
      ...(logprobs === undefined ? {} : { logprobs }),
      ...(logprobsOf === undefined ? {} : { logprobsOf }),
      ...(promptLogprobs === undefined ? {} : { promptLogprobs }),
      ...(beginsWith === undefined ? {} : { beginsWith }),
      key: this.#call.key,
      priority: this.#call.priority,
      namespace: this.#call.namespace,
    };
  }

  /** An error of an encoder must not travel into the engine: it ends this request. */
  #hear(event: EngineEvent): void {
    if (this.#isOver) return;
    try {
      this.#take(event);
    } catch (error) {
      this.#fail(error);
    }
  }

  #take(event: EngineEvent): void {
    switch (event.type) {
      case "started":
        this.cachedTokens = event.cachedTokens;
        this.#listener.started?.(this.#index, event.cachedTokens);
        break;
      case "prefill":
        this.#listener.prefill?.(this.#index, event.done, event.total);
        break;
      case "promptLogprobs":
        this.#listener.promptLogprobs?.(this.#index, event.logprobs);
        break;
      case "tokens":
        this.#tokens(event.ids, event.logprobs);
        break;
      case "end":
        this.#cancel = undefined;
        if (event.finish === "cancelled")
          this.#fail(
            new HttpError(503, "The engine cancelled the request", { code: "cancelled", retryAfterSeconds: 1 }),
          );
        else this.#end(event.finish, event.usage);
        break;
      case "error":
        this.#cancel = undefined;
        this.#fail(engineError(event.error));
        break;
      default:
        event satisfies never;
    }
  }

  #tokens(ids: readonly number[], logprobs: readonly TokenLogprob[] | undefined): void {
    const deltas: AnswerDelta[] = [];
    let isEnough = false;
    for (const [i, id] of ids.entries()) {
      if (this.#reader.isDone || isEnough) break;
      const logprob = logprobs?.[i];
      const own = this.#reader.push(id, logprob);
      isEnough = this.#listener.token?.(this.#index, { id, logprob, deltas: own }) === "enough";
      for (const delta of own) append(deltas, delta);
    }
    if (deltas.length > 0) this.#listener.deltas(this.#index, deltas);
    if (this.#reader.isDone) this.#end("stop");
    else if (isEnough) this.#end("length");
  }

  #end(finish: "stop" | "length", usage?: EngineUsage): void {
    if (this.#isOver) return;
    this.#isOver = true;
    const deltas = this.#reader.end(finish);
    if (deltas.length > 0) this.#listener.deltas(this.#index, deltas);
    const { result } = this.#reader;
    this.generatedTokens = result.generatedTokens;
    this.reasoningTokens = result.reasoningTokens;
    this.#listener.end(this.#index, result, usage);
    this.#stopEngine(result.generatedTokens);
    this.#settled.resolve();
  }

  #fail(error: unknown): void {
    this.#isOver = true;
    this.generatedTokens = this.#reader.generatedTokens;
    this.#stopEngine();
    this.#settled.reject(error);
  }
}

/** Adds a delta; text behind text of the same kind becomes one. */
export function append(deltas: AnswerDelta[], delta: AnswerDelta): void {
  const last = deltas.at(-1);
  const isSameKind =
    last?.type === delta.type && (delta.type !== "toolArguments" || (last as { index?: number }).index === delta.index);
  if (last === undefined || !isSameKind || delta.type === "toolCall" || last.type === "toolCall") {
    deltas.push(delta);
    return;
  }
  const tokens = [...(("tokens" in last && last.tokens) || []), ...(("tokens" in delta && delta.tokens) || [])];
  deltas[deltas.length - 1] = {
    ...last,
    text: last.text + delta.text,
    ...(tokens.length > 0 ? { tokens } : {}),
  } as AnswerDelta; // the kind and its fields are those of `last`
}

const requestCodes = new Set(["context_length_exceeded", "request", "sampling", "token-id", "empty-prompt"]);

function engineError({ code, message, hint, isRetryable }: EngineFailure): HttpError {
  const status = requestCodes.has(code) ? 400 : code === "overloaded" ? 429 : isRetryable ? 503 : 500;
  return new HttpError(status, message, {
    code,
    ...(hint === undefined ? {} : { hint }),
    ...(isRetryable ? { retryAfterSeconds: 1 } : {}),
  });
}
