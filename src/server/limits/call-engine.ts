/**
 * The engine as one call sees it. Requests carry the key, the namespace and the priority of the call whatever the route wrote; they
 * end when the call ends or a time limit passes; times and tokens are measured on the way. A route cannot leave a request running
 * behind a client that went away.
 */
import {
  type EngineEvent,
  type EngineInfo,
  type EnginePort,
  type EngineRequest,
  type EngineStatus,
  type EngineUsage,
  prepareImage,
  type RequestImage,
} from "../../engine/batching/engine-port.ts";

export interface TimeLimits {
  readonly queueMs: number;
  readonly firstTokenMs: number;
  readonly totalMs: number;
}

export const defaultTimeLimits: TimeLimits = { queueMs: 600_000, firstTokenMs: 1_800_000, totalMs: 7_200_000 };

/** Hears what happens to the requests of a call; times in milliseconds. */
export interface RequestObserver {
  started(queueMs: number): void;
  firstToken(sinceSubmitMs: number): void;
  tokens(count: number, sinceLastMs: number): void;
  /** `usage`: the engine's, of a request that it ended itself. */
  ended(outcome: string, totalMs: number, usage?: EngineUsage): void;
}

export interface CallEngineParts {
  readonly engine: EnginePort;
  readonly owner: { readonly key: string; readonly namespace: string; readonly priority: number };
  readonly limits: TimeLimits;
  readonly deadlines: Deadlines;
  readonly observer: RequestObserver;
}

export class CallEngine implements EnginePort {
  readonly #parts: CallEngineParts;
  readonly #running = new Map<string, TrackedRequest>();
  #generatedTokens = 0;
  #isOver = false;

  constructor(parts: CallEngineParts) {
    this.#parts = parts;
  }

  get info(): EngineInfo | undefined {
    return this.#parts.engine.info;
  }

  get status(): EngineStatus {
    return this.#parts.engine.status;
  }

  prepareImage(source: string): Promise<RequestImage> {
    return prepareImage(this.#parts.engine, source);
  }

  submit(request: EngineRequest, listener: (event: EngineEvent) => void): void {
    const { engine, owner } = this.#parts;
    const tracked = new TrackedRequest(request.id, this.#parts, listener, () => this.#running.delete(request.id));
    if (this.#isOver) {
      tracked.fail("cancelled", "The call is over");
      return;
    }
    this.#running.set(request.id, tracked);
    engine.submit({ ...request, ...owner }, (event) => {
      if (event.type === "tokens") this.#generatedTokens += event.ids.length;
      tracked.hear(event);
    });
  }

  cancel(id: string, keptTokens?: number): void {
    if (this.#running.has(id)) this.#parts.engine.cancel(id, keptTokens);
  }

  /** Tokens that all requests of the call gave. */
  get generatedTokens(): number {
    return this.#generatedTokens;
  }

  /** The answer is finished: what still runs ends. */
  close(): void {
    this.#isOver = true;
    for (const id of this.#running.keys()) this.#parts.engine.cancel(id);
  }
}

class TrackedRequest {
  readonly #id: string;
  readonly #parts: CallEngineParts;
  readonly #listener: (event: EngineEvent) => void;
  readonly #onOver: () => void;
  readonly #submittedMs: number;
  #lastTokenMs: number | undefined;
  #stopDeadline: () => void;
  #isOver = false;

  constructor(id: string, parts: CallEngineParts, listener: (event: EngineEvent) => void, onOver: () => void) {
    this.#id = id;
    this.#parts = parts;
    this.#listener = listener;
    this.#onOver = onOver;
    this.#submittedMs = parts.deadlines.nowMs();
    this.#stopDeadline = this.#within(Math.min(parts.limits.queueMs, parts.limits.totalMs), "in the queue");
  }

  hear(event: EngineEvent): void {
    if (this.#isOver) return;
    this.#measure(event);
    this.#listener(event);
  }

  fail(code: string, message: string): void {
    this.hear({ type: "error", error: { code, message, isRetryable: code === "timeout" } });
  }

  #measure(event: EngineEvent): void {
    const { observer, deadlines, limits } = this.#parts;
    const sinceSubmit = deadlines.nowMs() - this.#submittedMs;
    switch (event.type) {
      case "started":
        observer.started(sinceSubmit);
        this.#follow(Math.min(limits.firstTokenMs, limits.totalMs) - sinceSubmit, "before the first token");
        return;
      case "tokens":
        this.#measureTokens(event.ids.length, sinceSubmit);
        return;
      case "end":
        this.#finish(event.finish, sinceSubmit, event.usage);
        return;
      case "error":
        this.#finish(event.error.code, sinceSubmit);
        return;
      case "prefill":
      case "promptLogprobs":
        return;
      default:
        event satisfies never;
    }
  }

  #measureTokens(count: number, sinceSubmit: number): void {
    const { observer, limits } = this.#parts;
    if (this.#lastTokenMs === undefined) {
      observer.firstToken(sinceSubmit);
      this.#follow(limits.totalMs - sinceSubmit, "in all");
    }
    observer.tokens(count, sinceSubmit - (this.#lastTokenMs ?? sinceSubmit));
    this.#lastTokenMs = sinceSubmit;
  }

  #finish(outcome: string, sinceSubmit: number, usage?: EngineUsage): void {
    this.#isOver = true;
    this.#stopDeadline();
    this.#onOver();
    this.#parts.observer.ended(outcome, sinceSubmit, usage);
  }

  #follow(ms: number, where: string): void {
    this.#stopDeadline();
    this.#stopDeadline = this.#within(ms, where);
  }

  #within(ms: number, where: string): () => void {
    return this.#parts.deadlines.after(ms, () => {
      // In this order: what the engine says to the cancelling comes too late to be heard.
      this.fail("timeout", `The request took too long ${where}`);
      this.#parts.engine.cancel(this.#id);
    });
  }
}

/** When something should have happened. The clock and the timer are given, so that tests pass them by. */
export interface Deadlines {
  nowMs(): number;
  /** Calls back once after so long, unless the returned function was called before. */
  after(ms: number, then: () => void): () => void;
}

export const realDeadlines: Deadlines = {
  nowMs: () => performance.now(),
  after(ms, then) {
    // Timers take 31 bits of milliseconds.
    const timer = setTimeout(then, Math.min(Math.max(0, ms), 2 ** 31 - 1)).unref();
    return () => clearTimeout(timer);
  },
};
