/**
 * Many requests on one model: the scheduler says what the next step computes, one program computes it for all, and each request
 * samples its own tokens. What a request gets depends on nothing but itself: not on the batch, on preemption, on drafts, nor on
 * which part of it was cached. All of it runs in this process; device threads compute meanwhile.
 */
import { yieldToEventLoop } from "../../device/event-loop.ts";
import { FreeholdError, RequestError } from "../../errors.ts";
import { sequenceBytes } from "../cache/sequence-bytes.ts";
import type { Drafting } from "../drafting/drafting.ts";
import type { Model } from "../model.ts";
import type { Sequence } from "../model-runner.ts";
import { Pacer } from "../pacer.ts";
import { Answer, type Finish } from "./answer.ts";
import { checkRequest } from "./check-request.ts";
import { engineInfo } from "./engine-info.ts";
import {
  type EngineCounters,
  EngineError,
  type EngineEvent,
  type EngineFailure,
  type EngineInfo,
  type EnginePort,
  type EngineRequest,
  type EngineStatus,
  type RequestImage,
} from "./engine-port.ts";
import { EngineTotals, engramCounters } from "./engine-totals.ts";
import { failureOf, isFatal } from "./failures.ts";
import { prefixBlocks } from "./prefix-blocks.ts";
import { RunningStep } from "./running-step.ts";
import { Scheduler } from "./scheduler.ts";
import { type PlannedPart, type SchedulerOptions, type StepPlan, schedulerDefaults } from "./scheduler-types.ts";
import type { SequenceCachePort } from "./sequence-cache-port.ts";
import { computeStep, type Result, type Work } from "./step-work.ts";
import { TracedScheduler } from "./trace.ts";

export interface BatchEngineOptions {
  /** Changes of schedulerDefaults. */
  readonly scheduling?: Partial<Omit<SchedulerOptions, "bytesPerSequence" | "bytesPerToken" | "sharesPrefixes">>;
  /** What guesses tokens ahead; never changes an answer. Default: what the model was loaded with. */
  readonly drafting?: Drafting;
  /** Requests that may be in the engine at the same time; more are refused as "overloaded". Default 10,000. */
  readonly maxRequests?: number;
  /** What loading took, for `info`. */
  readonly loadSeconds?: number;
  /** Images of a request at most. Default 100. */
  readonly maxImages?: number;
  /** Hears every line of the scheduler's trace. */
  readonly onTrace?: (line: string) => void;
}

/** Logits of prompts that a step may hold: 64 MB of them. */
const mostPromptLogits = 16 << 20;

export class BatchEngine implements EnginePort {
  readonly info: EngineInfo;
  readonly #model: Model;
  readonly #cache: SequenceCachePort;
  readonly #scheduler: Scheduler;
  readonly #drafting: Drafting;
  readonly #maxRequests: number;
  /** By the client's id, and by the scheduler's. */
  readonly #byId = new Map<string, Answer>();
  readonly #bySerial = new Map<string, Answer>();
  readonly #pacer = new Pacer();
  readonly #totals = new EngineTotals();
  #serials = 0;
  #state: EngineStatus["state"] = "ready";
  #steps = 0;
  #stepSeconds = 0;
  #preemptions = 0;
  #heartbeatMs = wallClock();
  /** The loop, while there is something to do. */
  #loop: Promise<void> | undefined;
  #isStepping = false;
  #running: RunningStep | undefined;
  /** Others lost their part of the last step to a cancel: the next one is theirs. */
  #owesStep = false;
  #wake = Promise.withResolvers<void>();

  constructor(model: Model, cache: SequenceCachePort, options: BatchEngineOptions = {}) {
    this.#model = model;
    this.#cache = cache;
    this.#drafting = options.drafting ?? model.drafting;
    this.info = engineInfo(model, { ...options, drafter: this.#drafting.kind });
    this.#maxRequests = options.maxRequests ?? 10_000;
    const settings: SchedulerOptions = {
      ...schedulerDefaults,
      maxStepTokens: model.runner.stepTokens,
      tokensPerScore: model.runner.tokensPerScore,
      maxPromptLogits: Math.max(1, Math.min(128, Math.floor(mostPromptLogits / model.config.vocabSize))),
      ...options.scheduling,
      ...sequenceBytes(model.runner.cache),
      sharesPrefixes: cache.isForgetful !== true,
    };
    this.#scheduler = options.onTrace ? new TracedScheduler(settings, options.onTrace) : new Scheduler(settings);
  }

  submit(request: EngineRequest, listener: (event: EngineEvent) => void): void {
    try {
      this.#admit(request, listener);
    } catch (error) {
      // Not at once: a caller does not expect to be called before submit returns.
      queueMicrotask(() => listener({ type: "error", error: failureOf(error) }));
    }
  }

  async prepareImage(source: string): Promise<RequestImage> {
    try {
      if (this.#model.images === undefined)
        throw new RequestError("The model reads no images", { code: "unsupported_image", hint: "Send text only" });
      return { source, ...(await this.#model.images.prepare(source)) };
    } catch (error) {
      throw new EngineError(failureOf(error));
    }
  }

  cancel(id: string, keptTokens?: number): void {
    const answer = this.#byId.get(id);
    if (answer === undefined || answer.isCancelled) return;
    answer.isCancelled = true;
    answer.keptTokens = keptTokens;
    this.#running?.stopIfWorthIt();
    this.#goOn();
  }

  get status(): EngineStatus {
    return {
      state: this.#state,
      loaded: 1,
      // A tower at work is progress too: it may be all that there is for a minute.
      steps: this.#steps + (this.#model.images?.steps ?? 0),
      heartbeatMs: this.#heartbeatMs,
      running: this.#scheduler.running,
      waiting: this.#scheduler.waiting,
      counters: this.#counters(),
    };
  }

  /** A sign of life from outside while there is nothing to do. A step that hangs is not covered up: during one it does nothing. */
  tick(nowMs: number = wallClock()): void {
    if (!this.#isStepping && this.#state !== "dead") this.#heartbeatMs = nowMs;
  }

  /** Takes no new requests, finishes those it has, and writes what is to be remembered to disk. */
  async drain(): Promise<void> {
    if (this.#state === "ready") this.#state = "draining";
    while (this.#loop !== undefined) await this.#loop;
    await this.#cache.flush();
  }

  /** Cancels everything and closes the cache. The model stays the caller's. */
  async close(): Promise<void> {
    for (const id of this.#byId.keys()) this.cancel(id);
    await this.drain();
    this.#state = "dead";
    await this.#cache.close();
  }

  #counters(): EngineCounters {
    const engram = engramCounters(this.#model);
    return {
      ...this.#totals.with(this.#byId.values()),
      preemptions: this.#preemptions,
      stepSeconds: this.#stepSeconds,
      cache: this.#cache.counters,
      ...(engram && { engram }),
    };
  }

  #admit(request: EngineRequest, listener: (event: EngineEvent) => void): void {
    const { contextLength, config } = this.#model;
    if (this.#state !== "ready")
      throw new FreeholdError(`The engine is ${this.#state}`, { code: this.#state, hint: "Try again later" });
    if (this.#byId.size >= this.#maxRequests)
      throw new FreeholdError(`The engine has ${this.#byId.size} requests`, {
        code: "overloaded",
        hint: "Try again later",
      });
    if (this.#byId.has(request.id))
      throw new RequestError(`A request with the id "${request.id}" is running`, { code: "duplicate-id", where: "id" });
    checkRequest(request, config.vocabSize, contextLength);
    const serial = String(this.#serials++);
    const setting = { listener, contextLength, drafting: this.#drafting, nowMs: performance.now() };
    const answer = new Answer(request, serial, setting);
    this.#byId.set(request.id, answer);
    this.#bySerial.set(serial, answer);
    this.#time();
    this.#scheduler.handle({
      type: "submit",
      request: {
        id: serial,
        key: request.key,
        priority: request.priority,
        promptTokens: request.tokenIds.length,
        length: answer.tokenIds.length,
        mostTokens: answer.mostTokens,
        blocks: prefixBlocks(request.namespace, request.tokenIds),
        wantsAllLogits: answer.wantsPromptLogprobs,
      },
    });
    this.#goOn();
  }

  /** Something happened: the loop begins, or looks at it. */
  #goOn(): void {
    this.#wake.resolve();
    this.#loop ??= this.#run()
      .catch((error) => this.#failAll(error))
      .finally(() => {
        this.#loop = undefined;
        if (this.#byId.size > 0) this.#goOn();
      });
  }

  async #run(): Promise<void> {
    await yieldToEventLoop(); // requests that come together are planned together
    while (this.#byId.size > 0) {
      this.#wake = Promise.withResolvers<void>();
      this.#endFinished();
      this.#time();
      const plan = this.#scheduler.plan();
      for (const serial of plan.preempt) this.#preempt(this.#bySerial.get(serial)!);
      for (const serial of plan.start) void this.#start(this.#bySerial.get(serial)!);
      if (plan.parts.length > 0) await this.#step(plan);
      else if (plan.preempt.length + plan.start.length > 0) await yieldToEventLoop();
      else if (this.#byId.size > 0) await this.#wake.promise;
    }
  }

  #time(): void {
    this.#scheduler.handle({ type: "time", nowMs: performance.now() });
  }

  #preempt(answer: Answer): void {
    this.#preemptions++;
    this.#remember(answer, true);
    answer.release();
  }

  /** Gets the request a sequence with what is known of its tokens. The others go on meanwhile. */
  async #start(answer: Answer): Promise<void> {
    try {
      const sequence = await this.#cache.resume(answer.request.namespace, answer.resumableTokens);
      await this.#giveImages(sequence, answer);
      if (!this.#bySerial.has(answer.serial)) {
        sequence[Symbol.dispose]();
        return;
      }
      if (answer.start(sequence, performance.now()))
        this.#emit(answer, { type: "started", cachedTokens: sequence.length });
      this.#scheduler.handle({ type: "started", id: answer.serial, cachedTokens: sequence.length });
    } catch (error) {
      this.#fail(answer, error);
    }
    this.#goOn();
  }

  /** The rows of the images that are still to be computed. The tower runs between the steps of the others. */
  async #giveImages(sequence: Sequence, { request }: Answer): Promise<void> {
    if (this.#model.images === undefined || request.images === undefined) return;
    try {
      sequence.images = await this.#model.images.rowsOf(request.tokenIds, sequence.length);
    } catch (error) {
      sequence[Symbol.dispose]();
      throw error;
    }
  }

  #remember(answer: Answer, isFinal: boolean): void {
    const { sequence, request } = answer;
    if (sequence !== undefined && sequence.length > 0) this.#cache.remember(request.namespace, sequence, { isFinal });
  }

  /** A stop on the way through the prompt. */
  #rememberStop({ sequence, request }: Answer): void {
    const isPromptEnd = sequence!.length === request.tokenIds.length;
    this.#cache.remember(request.namespace, sequence!, { isFinal: false, isPromptEnd });
  }

  async #step({ parts }: StepPlan): Promise<void> {
    const started = performance.now();
    const work = parts.map((part) => this.#workOf(part)).filter((item) => !item.answer.isCancelled);
    if (work.length === 0) return;
    this.#isStepping = true;
    this.#cache.leaveRoom?.(this.#scheduler.runningBytes);
    this.#running = new RunningStep(work, this.#owesStep);
    const results = await computeStep(this.#model.runner, work, this.#running.signal);
    this.#running = undefined;
    const milliseconds = performance.now() - started;
    this.#stepSeconds += milliseconds / 1000;
    this.#owesStep = results === "stopped" && work.some(({ answer }) => !answer.isCancelled);
    if (results !== "stopped") await this.#takeAll(work, results, milliseconds);
    this.#isStepping = false;
    this.#heartbeatMs = wallClock();
    this.#endFinished();
    await yieldToEventLoop();
  }

  async #takeAll(work: readonly Work[], results: readonly Result[], milliseconds: number): Promise<void> {
    this.#steps++;
    this.#pacer.restart();
    for (const [i, item] of work.entries()) await this.#take(item, results[i]!);
    await this.#draft(work, milliseconds);
    for (const { answer } of work) this.#tellNews(answer);
    const progress = work
      .filter(({ answer }) => answer.sequence !== undefined && !answer.isCancelled)
      .map(({ answer: { serial: id, sequence, tokenIds, draft } }) => {
        return { id, computed: sequence!.length, length: tokenIds.length, draft: draft.length };
      });
    this.#scheduler.handle({ type: "step", milliseconds, progress });
  }

  #tellNews(answer: Answer): void {
    if (!this.#bySerial.has(answer.serial)) return; // it failed: nothing comes after that
    for (const event of answer.news()) this.#emit(answer, event);
  }

  #workOf({ id, tokens, draft: drafted, remember }: PlannedPart): Work {
    const answer = this.#bySerial.get(id)!;
    const sequence = answer.sequence!;
    const draft = answer.draft.slice(0, drafted);
    const end = sequence.length + tokens;
    const known = answer.tokenIds.slice(sequence.length, end);
    const upcoming = answer.tokenIds.slice(end, end + tokens);
    const outputs = answer.outputsOf(tokens, draft.length);
    const append = { sequence, tokenIds: [...known, ...draft], outputs, upcoming };
    return { answer, append, draft, remember };
  }

  async #take({ answer, draft, remember }: Work, result: Result): Promise<void> {
    try {
      if ("error" in result) throw result.error;
      if (answer.isCancelled) return;
      if (remember) this.#rememberStop(answer);
      await answer.take(result.rows, draft, this.#pacer, performance.now());
    } catch (error) {
      if (isFatal(error)) this.#die(error);
      else this.#fail(answer, error);
    }
  }

  /** Guesses what follows, for all who wait for their next token. */
  async #draft(work: readonly Work[], milliseconds: number): Promise<void> {
    this.#drafting.costs.step(
      work.reduce((sum, { append }) => sum + append.tokenIds.length, 0),
      milliseconds,
    );
    const wanted = work.flatMap(({ answer }) => {
      answer.draft = [];
      const draft = answer.wantedDraft;
      return draft === undefined ? [] : [{ answer, ...draft }];
    });
    // What the scheduler has no room for is not drafted.
    const most = Math.floor(schedulerDefaults.maxDraftTokens / Math.max(1, wanted.length));
    try {
      const drafts = await this.#drafting.propose(wanted, most);
      for (const [i, { answer }] of wanted.entries()) answer.draft = drafts[i]!;
    } catch (error) {
      if (!isFatal(error)) throw error;
      this.#die(error);
    }
  }

  /** A fault of the engine itself: the requests of the moment fail, the next ones get a new chance. */
  #failAll(error: unknown): void {
    this.#isStepping = false;
    for (const answer of [...this.#byId.values()]) this.#fail(answer, error);
  }

  /** Ends what was cancelled or has its last token. */
  #endFinished(): void {
    for (const answer of [...this.#byId.values()]) {
      if (answer.finish !== undefined) this.#end(answer, answer.finish);
      else if (answer.isCancelled) this.#end(answer, "cancelled");
    }
  }

  #end(answer: Answer, finish: Finish): void {
    if (finish !== "cancelled" || windBackToKept(answer)) this.#remember(answer, true);
    const usage = answer.usage(performance.now());
    this.#forget(answer);
    this.#emit(answer, { type: "end", finish, usage });
  }

  #fail(answer: Answer, error: unknown): void {
    if (!this.#bySerial.has(answer.serial)) return;
    this.#forget(answer);
    this.#emit(answer, { type: "error", error: failureOf(error) });
  }

  /** The device is gone: nothing can be computed any more. */
  #die(error: unknown): void {
    this.#state = "dead";
    const failure: EngineFailure = { ...failureOf(error), code: "engine_died", isRetryable: true };
    for (const answer of [...this.#byId.values()]) {
      this.#forget(answer);
      this.#emit(answer, { type: "error", error: failure });
    }
  }

  #forget(answer: Answer): void {
    this.#totals.ended(answer);
    answer.release();
    this.#byId.delete(answer.request.id);
    this.#bySerial.delete(answer.serial);
    this.#scheduler.handle({ type: "end", id: answer.serial });
  }

  /** A listener that throws hears no more; its request ends as cancelled. */
  #emit(answer: Answer, event: EngineEvent): void {
    if (answer.isDeaf) return;
    try {
      answer.listener(event);
    } catch (error) {
      answer.isDeaf = true;
      answer.isCancelled = true;
      process.emitWarning(error instanceof Error ? error : String(error));
    }
  }
}

/** Leaves only the tokens that the client knows; false when that is not asked for, or too far back. */
function windBackToKept({ sequence, keptTokens, request }: Answer): boolean {
  if (sequence === undefined || keptTokens === undefined) return false;
  const length = request.tokenIds.length + keptTokens;
  if (sequence.length <= length) return true;
  if (!sequence.cache.canRewindTo(length)) return false;
  sequence.rewind(sequence.length - length);
  return true;
}

function wallClock(): number {
  return performance.timeOrigin + performance.now();
}
