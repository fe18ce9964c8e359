/** An engine without a model for the scheduler's tests: tokens cost virtual milliseconds, and every plan is checked as it comes. */
import assert from "node:assert/strict";
import { commonTokens, prefixBlocks } from "../../src/engine/batching/prefix-blocks.ts";
import { type SchedulerOptions, type StepPlan, schedulerDefaults } from "../../src/engine/batching/scheduler-types.ts";
import { TracedScheduler } from "../../src/engine/batching/trace.ts";

export interface SimulatedRequest {
  readonly id: string;
  readonly key: string;
  readonly priority?: number;
  readonly atMs: number;
  readonly prompt: readonly number[];
  readonly answer: number;
  readonly cached?: number;
  /** Ends early, after so many steps of the whole run. */
  readonly cancelAtStep?: number;
  readonly wantsAllLogits?: boolean;
  /** Tokens that a draft always proposes; half of them are right. */
  readonly draft?: number;
}

export interface Outcome {
  readonly id: string;
  readonly firstTokenMs: number;
  readonly endMs: number;
}

interface State {
  readonly request: SimulatedRequest;
  phase: "waiting" | "running" | "ended";
  computed: number;
  length: number;
  draft: number;
  firstTokenMs: number;
  generated: number;
  computedTokens: number;
}

export const simulatedOptions: SchedulerOptions = { ...schedulerDefaults, bytesPerSequence: 1000, bytesPerToken: 10 };

export class SimulatedEngine {
  readonly options: SchedulerOptions;
  readonly outcomes: Outcome[] = [];
  readonly plans: StepPlan[] = [];
  trace = "";
  nowMs = 0;
  steps = 0;
  /** Fingerprints of prefixes that were remembered. */
  readonly #remembered: number[][] = [];
  readonly states = new Map<string, State>();
  readonly #scheduler: TracedScheduler;
  readonly #msPerToken: number;

  constructor(options: Partial<SchedulerOptions> = {}, msPerToken = 0.1) {
    this.options = { ...simulatedOptions, ...options };
    this.#msPerToken = msPerToken;
    this.#scheduler = new TracedScheduler(this.options, (line) => {
      this.trace += line;
    });
  }

  /** Runs until all requests have ended, or fails: a plan without work while there is some is a hang. */
  run(requests: readonly SimulatedRequest[]): Outcome[] {
    const coming = [...requests].sort((a, b) => a.atMs - b.atMs);
    while (coming.length > 0 || [...this.states.values()].some(({ phase }) => phase !== "ended")) {
      while (coming.length > 0 && coming[0]!.atMs <= this.nowMs) this.#submit(coming.shift()!);
      this.#scheduler.handle({ type: "time", nowMs: this.nowMs });
      const plan = this.#scheduler.plan();
      this.plans.push(plan);
      this.#check(plan);
      this.#apply(plan);
      if (plan.start.length + plan.parts.length + plan.preempt.length > 0) continue;
      assert.ok(coming.length > 0 || this.#held(), "nothing is planned though requests wait");
      this.nowMs = Math.max(this.nowMs + 1, this.#held() ? this.nowMs : coming[0]!.atMs);
    }
    return this.outcomes;
  }

  /** Requests that wait for another's prefix may stand still while that one starts, no longer. */
  #held(): boolean {
    return [...this.states.values()].some(({ phase }) => phase === "waiting");
  }

  #submit(request: SimulatedRequest): void {
    const { id, key, priority = 1, prompt, answer, wantsAllLogits = false } = request;
    assert.ok(!this.states.has(id));
    const length = prompt.length;
    this.states.set(id, {
      request,
      phase: "waiting",
      computed: 0,
      length,
      draft: 0,
      firstTokenMs: Number.NaN,
      generated: 0,
      computedTokens: 0,
    });
    const blocks = prefixBlocks("", prompt);
    const mostTokens = length + answer;
    this.#scheduler.handle({
      type: "submit",
      request: { id, key, priority, promptTokens: length, length, mostTokens, blocks, wantsAllLogits },
    });
  }

  #check({ preempt, start, parts }: StepPlan): void {
    const { maxStepTokens, maxRunning, maxDraftTokens, maxPromptLogits, cacheBytes } = this.options;
    for (const id of preempt)
      assert.equal(this.states.get(id)!.phase, "running", "only a running request is preempted");
    for (const id of start) assert.equal(this.states.get(id)!.phase, "waiting", "only a waiting request starts");
    const running = [...this.states.values()].filter(
      ({ phase, request: { id } }) => phase === "running" && !preempt.includes(id),
    );
    assert.ok(running.length + start.length <= maxRunning, "more requests run than may");
    assert.equal(new Set(parts.map(({ id }) => id)).size, parts.length, "a request takes part twice");
    const tokens = parts.reduce((sum, part) => sum + part.tokens + part.draft, 0);
    assert.ok(tokens <= maxStepTokens, `a step of ${tokens} tokens, ${maxStepTokens} are allowed`);
    assert.ok(parts.reduce((sum, { draft }) => sum + draft, 0) <= maxDraftTokens);
    let bytes = 0;
    let logits = 0;
    for (const state of running) {
      const part = parts.find(({ id }) => id === state.request.id);
      bytes += this.options.bytesPerSequence;
      bytes += this.options.bytesPerToken * (state.computed + (part?.tokens ?? 0) + (part?.draft ?? 0));
      const remaining = state.length - state.computed;
      if (remaining === 1) assert.ok(part !== undefined, "a running answer does not get its next token");
      if (part === undefined) continue;
      assert.ok(part.tokens >= 1 && part.tokens <= remaining);
      const end = state.computed + part.tokens;
      assert.ok(
        end === state.length || end % 128 === 0 || maxStepTokens < running.length + maxDraftTokens + 128,
        `a chunk ends at ${end} of ${state.length}`,
      );
      if (remaining > 1 && state.request.wantsAllLogits) logits += part.tokens;
    }
    for (const { id } of parts)
      assert.ok(
        running.some(({ request }) => request.id === id),
        "one that does not run takes part",
      );
    assert.ok(bytes <= cacheBytes || running.length === 1, `${bytes} bytes, ${cacheBytes} are allowed`);
    assert.ok(logits <= maxPromptLogits);
  }

  #apply({ preempt, start, parts }: StepPlan): void {
    for (const id of preempt) {
      const state = this.states.get(id)!;
      state.phase = "waiting";
    }
    for (const id of start) {
      const state = this.states.get(id)!;
      state.phase = "running";
      // What was preempted was remembered; at least the last token is always computed.
      const own = prefixBlocks("", state.request.prompt);
      const known = this.#remembered.map((blocks) => commonTokens(blocks, own));
      state.computed = Math.min(Math.max(state.computed, state.request.cached ?? 0, ...known), state.length - 1);
      this.#scheduler.handle({ type: "started", id, cachedTokens: state.computed });
    }
    if (parts.length === 0) return;
    const tokens = parts.reduce((sum, part) => sum + part.tokens + part.draft, 0);
    const milliseconds = 1 + tokens * this.#msPerToken;
    this.nowMs += milliseconds;
    this.steps++;
    const progress = parts.map(({ id, tokens: computed, draft, remember }) => {
      const state = this.states.get(id)!;
      const end = state.computed + computed;
      if (remember && this.options.sharesPrefixes)
        this.#remembered.push(prefixBlocks("", state.request.prompt.slice(0, end)));
      state.computedTokens += computed;
      state.computed += computed;
      if (state.computed === state.length) this.#sample(state, draft);
      return { id, computed: state.computed, length: state.length, draft: state.draft };
    });
    this.#scheduler.handle({ type: "step", milliseconds, progress });
    for (const state of this.states.values()) this.#endIfDone(state);
  }

  #sample(state: State, draft: number): void {
    const { answer, draft: proposed = 0 } = state.request;
    const accepted = Math.min(Math.floor(draft / 2), answer - state.generated - 1);
    if (state.generated === 0) state.firstTokenMs = this.nowMs;
    state.computed += accepted;
    state.length += 1 + accepted;
    state.generated += 1 + accepted;
    state.draft = proposed;
  }

  #endIfDone(state: State): void {
    if (state.phase === "ended") return;
    const { id, answer, cancelAtStep } = state.request;
    const isCancelled = cancelAtStep !== undefined && this.steps >= cancelAtStep;
    if (state.generated < answer && !isCancelled) return;
    if (!isCancelled) assert.equal(state.generated, answer, "an answer has too many tokens");
    state.phase = "ended";
    this.outcomes.push({ id, firstTokenMs: state.firstTokenMs - state.request.atMs, endMs: this.nowMs });
    this.#scheduler.handle({ type: "end", id });
  }
}
