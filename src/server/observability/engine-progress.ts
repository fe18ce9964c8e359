/**
 * Health is progress: an engine that is asked and makes no steps is not ready, however politely its port answers. Times are taken
 * on this side, when a change is seen: the clocks of two processes may differ.
 */
import type { EnginePort, EngineStatus } from "../../engine/batching/engine-port.ts";

export type Readiness = { readonly isReady: true } | { readonly isReady: false; readonly why: string };

/** An engine may be silent for this long, or for four of its slowest steps. */
const leastPatienceMs = 5_000;

export class EngineProgress {
  readonly #engine: EnginePort;
  readonly #nowMs: () => number;
  #steps = -1;
  #heartbeatMs = -1;
  #heartbeatSeenMs: number;
  #progressSeenMs: number;
  /** The slowest step of late: it fades, so that one long prompt is not remembered for ever. */
  #slowestStepMs = 0;

  constructor(engine: EnginePort, nowMs: () => number) {
    this.#engine = engine;
    this.#nowMs = nowMs;
    this.#heartbeatSeenMs = nowMs();
    this.#progressSeenMs = nowMs();
  }

  /** Looks at the status; called by a timer and before each answer. */
  observe(): void {
    const status = this.#engine.status;
    const now = this.#nowMs();
    if (status.heartbeatMs !== this.#heartbeatMs) this.#heartbeatSeenMs = now;
    if (status.steps !== this.#steps || isIdle(status)) this.#noteProgress(now, !isIdle(status));
    this.#heartbeatMs = status.heartbeatMs;
    this.#steps = status.steps;
  }

  get readiness(): Readiness {
    this.observe();
    const { state } = this.#engine.status;
    if (this.#engine.info === undefined) return { isReady: false, why: "the model is loading" };
    // Its model comes back with the next request.
    if (state === "sleeping" || state === "waking") return { isReady: true };
    if (state !== "ready")
      return { isReady: false, why: state === "loading" ? "the engine is starting" : `the engine is ${state}` };
    const patience = Math.max(leastPatienceMs, 4 * this.#slowestStepMs);
    const now = this.#nowMs();
    if (now - this.#heartbeatSeenMs > patience) return { isReady: false, why: "the engine is silent" };
    if (now - this.#progressSeenMs > patience) return { isReady: false, why: "the engine makes no progress" };
    return { isReady: true };
  }

  #noteProgress(now: number, isStep: boolean): void {
    if (isStep) this.#slowestStepMs = Math.max(this.#slowestStepMs * 0.99, now - this.#progressSeenMs);
    this.#progressSeenMs = now;
  }
}

function isIdle({ running, waiting }: EngineStatus): boolean {
  return running + waiting === 0;
}
