/**
 * An engine that gives its memory back while nobody needs it: after a time without work it writes what it computed to disk and lets
 * its model go; the next request loads it again and waits for that. Requests that come meanwhile are held, and nothing that was told
 * before is lost: `info` stays, and counters go on from where they were.
 */
import type {
  EngineEvent,
  EngineFailure,
  EngineInfo,
  EngineRequest,
  EngineStatus,
} from "../../engine/batching/engine-port.ts";
import { FreeholdError } from "../../errors.ts";
import { emptyStatus, type HostedEngine } from "./engine-messages.ts";

export interface SleepParts {
  /** Loads the model anew. */
  open(): Promise<HostedEngine>;
  /** Without work for so long it falls asleep. */
  readonly afterMs: number;
}

interface Held {
  readonly request: EngineRequest;
  readonly listener: (event: EngineEvent) => void;
}

export class SleepingEngine implements HostedEngine {
  readonly #parts: SleepParts;
  readonly #held = new Map<string, Held>();
  readonly #running = new Set<string>();
  #engine: HostedEngine | undefined;
  #info: EngineInfo | undefined;
  /** Of the engines before this one. */
  #past = emptyStatus("sleeping");
  #timer: NodeJS.Timeout | undefined;
  #fallingAsleep: Promise<void> | undefined;
  #waking: Promise<void> | undefined;
  #isClosed = false;

  private constructor(engine: HostedEngine, parts: SleepParts) {
    this.#parts = parts;
    this.#engine = engine;
    this.#info = engine.info;
    this.#restAfterWork();
  }

  /** Loads the model once, so that a fault of its files is known at the start. */
  static async start(parts: SleepParts): Promise<SleepingEngine> {
    return new SleepingEngine(await parts.open(), parts);
  }

  get info(): EngineInfo | undefined {
    return this.#info;
  }

  get status(): EngineStatus {
    const past = this.#past;
    const now = this.#engine?.status;
    if (now !== undefined) return { ...now, steps: past.steps + now.steps, counters: sum(past.counters, now.counters) };
    const heartbeatMs = performance.timeOrigin + performance.now();
    const state = this.#waking === undefined ? "sleeping" : "waking";
    return { ...past, state, loaded: 1, heartbeatMs, waiting: this.#held.size };
  }

  /** A request is on its way: loading begins while its prompt is still read. */
  wake(): void {
    if (this.#isClosed) return;
    if (this.#engine === undefined) this.#beginWaking();
    else this.#restAfterWork();
  }

  submit(request: EngineRequest, listener: (event: EngineEvent) => void): void {
    if (this.#isClosed) {
      queueMicrotask(() => listener({ type: "error", error: stopping }));
      return;
    }
    clearTimeout(this.#timer);
    this.#running.add(request.id);
    const hear = (event: EngineEvent) => {
      if (event.type === "end" || event.type === "error") this.#ended(request.id);
      listener(event);
    };
    if (this.#engine !== undefined) {
      this.#engine.submit(request, hear);
      return;
    }
    this.#held.set(request.id, { request, listener: hear });
    this.#beginWaking();
  }

  cancel(id: string, keptTokens?: number): void {
    const held = this.#held.get(id);
    if (held === undefined) {
      this.#engine?.cancel(id, keptTokens);
      return;
    }
    this.#held.delete(id);
    held.listener({ type: "end", finish: "cancelled", usage: nothingComputed(held.request) });
  }

  async close(): Promise<void> {
    this.#isClosed = true;
    clearTimeout(this.#timer);
    for (const id of [...this.#held.keys()]) this.cancel(id);
    await this.#waking;
    await this.#fallingAsleep;
    await this.#engine?.close();
  }

  #ended(id: string): void {
    this.#running.delete(id);
    this.#restAfterWork();
  }

  #restAfterWork(): void {
    clearTimeout(this.#timer);
    if (this.#running.size > 0 || this.#engine === undefined || this.#isClosed) return;
    this.#timer = setTimeout(() => this.#fallAsleep(), this.#parts.afterMs).unref();
  }

  #fallAsleep(): void {
    const engine = this.#engine!;
    this.#past = restOf(this.status);
    this.#engine = undefined;
    this.#fallingAsleep = engine.close().catch((error) => {
      process.emitWarning(error instanceof Error ? error : String(error));
    });
  }

  #beginWaking(): void {
    this.#waking ??= this.#wakeUp();
  }

  /** Not before the last engine has let go of its files: the directory of computed prompts belongs to one at a time. */
  async #wakeUp(): Promise<void> {
    try {
      await this.#fallingAsleep;
      this.#engine = await this.#parts.open();
      this.#info = this.#engine.info;
      this.#waking = undefined;
    } catch (error) {
      // The next request tries again.
      this.#waking = undefined;
      this.#failHeld(error);
      return;
    }
    for (const { request, listener } of this.#takeHeld()) this.#engine.submit(request, listener);
    this.#restAfterWork();
  }

  #failHeld(error: unknown): void {
    const code = error instanceof FreeholdError ? error.code : "engine_error";
    const message = error instanceof Error ? error.message : String(error);
    const failure: EngineFailure = { code, message, isRetryable: true };
    for (const { listener } of this.#takeHeld()) listener({ type: "error", error: failure });
  }

  #takeHeld(): Held[] {
    const held = [...this.#held.values()];
    this.#held.clear();
    return held;
  }
}

/** What stays of an engine that is gone: its totals, and no memory in use. */
function restOf(status: EngineStatus): EngineStatus {
  const { counters } = status;
  const cache = { ...counters.cache, memoryBytes: 0 };
  const engram = counters.engram && { engram: { ...counters.engram, memoryBytes: 0 } };
  return { ...status, state: "sleeping", running: 0, waiting: 0, counters: { ...counters, cache, ...engram } };
}

/** What is a level, not a total: that of the present engine counts. */
const levels = new Set(["memoryBytes", "memoryBudgetBytes", "diskBytes", "diskBudgetBytes"]);

/** Totals are added up. */
function sum<T extends object>(past: T, now: T): T {
  const added = Object.entries(now).map(([name, value]) => {
    const before = past[name as keyof T];
    if (typeof value === "number" && !levels.has(name)) return [name, value + ((before as number | undefined) ?? 0)];
    const isTotals = typeof value === "object" && value !== null;
    return [name, isTotals ? sum((before as object | undefined) ?? {}, value as object) : value];
  });
  return Object.fromEntries(added) as T; // the same names
}

const stopping: EngineFailure = { code: "stopping", message: "The server stops", isRetryable: true };

function nothingComputed({ tokenIds, generated }: EngineRequest) {
  return {
    promptTokens: tokenIds.length,
    cachedTokens: 0,
    generatedTokens: generated.length,
    draftedTokens: 0,
    acceptedTokens: 0,
    seconds: { queue: 0, prefill: 0, decode: 0 },
  };
}
