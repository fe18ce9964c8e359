/**
 * An engine without a model: token i of an answer is a function of the seed and i, so a test knows every answer in advance. Requests
 * carry commands in their prompt: [command, argument, ...]. It runs in the test's process or, by `startEngine`, as an engine process.
 */
import {
  type EngineEvent,
  type EngineInfo,
  type EnginePort,
  type EngineRequest,
  type EngineStatus,
  noCache,
} from "../../src/engine/batching/engine-port.ts";

/** What a request makes the engine do once it has given `argument` tokens in all. */
export const commands = { none: 0, die: 1, wedge: 2, fail: 3 } as const;

export interface ScriptedOptions {
  /** Milliseconds between two steps; 0: steps are made by `step()` alone. */
  readonly stepMs?: number;
  readonly maxRunning?: number;
  readonly loadMs?: number;
  /** How long the engine's event loop is busy as soon as it is loaded. */
  readonly busyMs?: number;
}

export const scriptedVocabulary = 4096;

export function scriptedToken(seed: number, index: number): number {
  return (Math.imul(seed + 1, 0x9e3779b1) ^ Math.imul(index + 7, 0x85ebca6b)) >>> 20;
}

export const scriptedInfo: EngineInfo = {
  name: "scripted",
  vocabSize: scriptedVocabulary,
  contextLength: 100_000,
  bosTokenId: 0,
  eosTokenIds: [1],
  addsBeginOfSequence: false,
  defaults: {},
  device: "script",
  kernels: "none",
  threads: 1,
  parameters: 0,
  loadSeconds: 0,
};

interface Running {
  readonly request: EngineRequest;
  readonly listener: (event: EngineEvent) => void;
  given: number;
}

export class ScriptedEngine implements EnginePort {
  readonly info: EngineInfo | undefined = scriptedInfo;
  readonly #running = new Map<string, Running>();
  readonly #waiting: Running[] = [];
  readonly #maxRunning: number;
  readonly #timer: NodeJS.Timeout | undefined;
  #steps = 0;
  #generated = 0;
  #prompts = 0;
  #isWedged = false;
  #heartbeatMs = performance.timeOrigin + performance.now();

  constructor({ stepMs = 0, maxRunning = Number.POSITIVE_INFINITY }: ScriptedOptions = {}) {
    this.#maxRunning = maxRunning;
    if (stepMs > 0) this.#timer = setInterval(() => this.step(), stepMs);
  }

  submit(request: EngineRequest, listener: (event: EngineEvent) => void): void {
    this.#waiting.push({ request, listener, given: request.generated.length });
  }

  cancel(id: string): void {
    const index = this.#waiting.findIndex(({ request }) => request.id === id);
    const one = this.#running.get(id) ?? this.#waiting[index];
    if (index >= 0) this.#waiting.splice(index, 1);
    if (one !== undefined) this.#end(one, "cancelled");
  }

  get running(): readonly string[] {
    return [...this.#running.keys()];
  }

  get status(): EngineStatus {
    return {
      state: "ready",
      loaded: 1,
      steps: this.#steps,
      heartbeatMs: this.#heartbeatMs,
      running: this.#running.size,
      waiting: this.#waiting.length,
      counters: {
        promptTokens: this.#prompts,
        cachedTokens: 0,
        generatedTokens: this.#generated,
        drafts: 0,
        draftedTokens: 0,
        acceptedTokens: 0,
        preemptions: 0,
        stepSeconds: 0,
        cache: noCache,
      },
    };
  }

  /** One token for every running request. */
  step(): void {
    if (this.#isWedged) return;
    this.#steps++;
    this.#heartbeatMs = performance.timeOrigin + performance.now();
    while (this.#running.size < this.#maxRunning && this.#waiting.length > 0) this.#start(this.#waiting.shift()!);
    for (const one of [...this.#running.values()]) this.#advance(one);
  }

  async close(): Promise<void> {
    clearInterval(this.#timer);
  }

  #start(one: Running): void {
    this.#prompts += one.request.tokenIds.length;
    this.#running.set(one.request.id, one);
    one.listener({ type: "started", cachedTokens: 0 });
    one.listener({ type: "prefill", done: one.request.tokenIds.length, total: one.request.tokenIds.length });
  }

  #advance(one: Running): void {
    const { request, listener } = one;
    if (this.#obey(one)) return;
    const id = scriptedToken(request.sampling.seed, one.given++);
    this.#generated++;
    listener({ type: "tokens", ids: [id] });
    if (request.stopTokenIds.includes(id)) this.#end(one, "stop");
    else if (one.given >= request.maxTokens) this.#end(one, "length");
  }

  /** True when the command takes the place of the next token. */
  #obey(one: Running): boolean {
    const [command = commands.none, argument = 0] = one.request.tokenIds;
    if (command === commands.none || one.given < argument) return false;
    switch (command) {
      case commands.die:
        process.kill(process.pid, "SIGKILL");
        return true;
      case commands.wedge:
        this.#isWedged = true;
        return true;
      case commands.fail:
        this.#running.delete(one.request.id);
        one.listener({
          type: "error",
          error: { code: "engine_error", message: "The logits are not numbers", isRetryable: false },
        });
        return true;
      default:
        return false;
    }
  }

  #end(one: Running, finish: "stop" | "length" | "cancelled"): void {
    this.#running.delete(one.request.id);
    one.listener({
      type: "end",
      finish,
      usage: {
        promptTokens: one.request.tokenIds.length,
        cachedTokens: 0,
        generatedTokens: one.given,
        draftedTokens: 0,
        acceptedTokens: 0,
        seconds: { queue: 0, prefill: 0, decode: 0 },
      },
    });
  }
}

/** As the module of an engine process. */
export async function startEngine(options: ScriptedOptions): Promise<ScriptedEngine> {
  if (options.loadMs !== undefined) await new Promise((resolve) => setTimeout(resolve, options.loadMs));
  const { busyMs = 0 } = options;
  setImmediate(() => {
    for (const end = performance.now() + busyMs; performance.now() < end; );
  });
  return new ScriptedEngine({ stepMs: 2, ...options });
}
