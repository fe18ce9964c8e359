/**
 * Decides what the next step computes. Pure: it hears events, says plans, and knows neither clock nor model; the same events give
 * the same plans (trace.ts replays them). A plan is made in this order:
 *   1. Running requests that no longer fit into the byte budget are preempted, the least important and youngest first.
 *   2. Waiting requests are admitted while their predicted bytes fit: class (raised by age), then deficit round robin over keys,
 *      then first come first served. One that shares a prefix with a prompt under way waits for it instead of computing it twice.
 *   3. Every running answer gets its next token, and a draft where there is room.
 *   4. The rest of the step goes to prompts, in chunks that end at blocks of 128 tokens, keys in turns.
 */
import { blockTokens } from "../../tensor/paging.ts";
import { stepTokensAt } from "../step-tokens.ts";
import { FairQueue } from "./fair-queue.ts";
import { commonTokens } from "./prefix-blocks.ts";
import type {
  PlannedPart,
  Progress,
  ScheduledRequest,
  SchedulerEvent,
  SchedulerOptions,
  StepPlan,
} from "./scheduler-types.ts";
import { type PrefillCandidate, rememberTokens, sharePrefill } from "./share-prefill.ts";
import { StepBudget } from "./step-budget.ts";
import { agedClass, WaitingLine } from "./waiting-line.ts";

interface Entry extends ScheduledRequest, PrefillCandidate {
  readonly order: number;
  readonly submittedMs: number;
  state: "waiting" | "starting" | "running";
  length: number;
  computed: number;
  draft: number;
  /** The step in which it took part last. */
  lastStep: number;
  /** Since when it waits for another request's prefix. */
  heldSinceMs: number | undefined;
  /** Where another request wants to go on from. */
  stop: number | undefined;
}

export class Scheduler {
  readonly #options: SchedulerOptions;
  readonly #entries = new Map<string, Entry>();
  readonly #waiting: WaitingLine<Entry>;
  /** Turns at being admitted, and turns within a step. */
  readonly #admissions: FairQueue;
  readonly #chunks: FairQueue;
  readonly #budget: StepBudget;
  /** For whom a running request was displaced: goes before anyone else. */
  #promisedTo: string | undefined;
  #order = 0;
  #steps = 0;
  #nowMs = 0;

  constructor(options: SchedulerOptions) {
    this.#options = options;
    this.#waiting = new WaitingLine(options.agingMs);
    this.#admissions = new FairQueue(options.maxStepTokens);
    this.#chunks = new FairQueue(blockTokens, 2 * options.maxStepTokens);
    this.#budget = new StepBudget(options.maxStepTokens);
  }

  get waiting(): number {
    return this.#waiting.size;
  }

  get running(): number {
    return this.#entries.size - this.#waiting.size;
  }

  handle(event: SchedulerEvent): void {
    switch (event.type) {
      case "time":
        // A clock that is set back does not make anyone younger.
        this.#nowMs = Math.max(this.#nowMs, event.nowMs);
        return;
      case "submit":
        this.#submit(event.request);
        return;
      case "started":
        this.#started(event.id, event.cachedTokens);
        return;
      case "step":
        this.#stepped(event.milliseconds, event.progress);
        return;
      case "end":
        this.#end(event.id);
        return;
      default:
        event satisfies never;
    }
  }

  plan(): StepPlan {
    const preempt = this.#preemptForBytes();
    const start = preempt.length === 0 ? this.#admitAll(preempt) : [];
    const parts = this.#parts();
    if (parts.length > 0) this.#steps++;
    return { preempt, start, parts };
  }

  #submit(request: ScheduledRequest): void {
    const entry: Entry = {
      ...request,
      order: this.#order++,
      submittedMs: this.#nowMs,
      state: "waiting",
      computed: 0,
      draft: 0,
      lastStep: -1,
      heldSinceMs: undefined,
      stop: undefined,
    };
    this.#entries.set(entry.id, entry);
    this.#waiting.add(entry);
  }

  #started(id: string, cachedTokens: number): void {
    const entry = this.#entries.get(id);
    if (entry?.state !== "starting") return;
    entry.state = "running";
    entry.computed = cachedTokens;
    this.#admissions.charge(entry.key, -(1 - cachedCost) * cachedTokens);
  }

  #stepped(milliseconds: number, progress: readonly Progress[]): void {
    let tokens = 0;
    let prompts = 0;
    for (const { id, computed, length, draft } of progress) {
      const entry = this.#entries.get(id);
      if (entry?.state !== "running") continue;
      const done = Math.max(0, computed - entry.computed);
      tokens += done;
      if (entry.length - entry.computed > 1) prompts += done;
      this.#admissions.charge(entry.key, Math.max(0, length - entry.length));
      entry.computed = computed;
      entry.length = length;
      entry.draft = draft;
      if (entry.stop !== undefined && computed >= entry.stop) entry.stop = undefined;
    }
    // Steps of answers alone say little of what a token of a prompt costs.
    if (2 * prompts >= tokens) this.#budget.observe(tokens, milliseconds);
  }

  #end(id: string): void {
    const entry = this.#entries.get(id);
    if (entry === undefined) return;
    this.#entries.delete(id);
    if (entry.state === "waiting") this.#waiting.remove(entry);
    for (const other of this.#entries.values()) if (other.key === entry.key) return;
    this.#admissions.forget(entry.key);
    this.#chunks.forget(entry.key);
  }

  // 1. Bytes

  #preemptForBytes(): string[] {
    const preempt: string[] = [];
    for (;;) {
      const active = [...this.#active()];
      if (this.runningBytes <= this.#options.cacheBytes || active.length <= 1) return preempt;
      // One that is just starting has nothing to remember yet.
      const victim = leastImportant(active.filter(({ state }) => state === "running"));
      if (victim === undefined) return preempt;
      preempt.push(this.#preempt(victim));
    }
  }

  #preempt(entry: Entry): string {
    entry.state = "waiting";
    entry.computed = 0;
    entry.draft = 0;
    entry.stop = undefined;
    entry.heldSinceMs = undefined;
    this.#waiting.add(entry);
    return entry.id;
  }

  /** What the caches of the running requests take after the next token, drafts aside. */
  get runningBytes(): number {
    let bytes = 0;
    for (const { length } of this.#active()) bytes += this.#bytes(length + 1);
    return bytes;
  }

  #bytes(tokens: number): number {
    const { bytesPerSequence, bytesPerToken } = this.#options;
    return bytesPerSequence + bytesPerToken * tokens;
  }

  #predictedBytes({ length, mostTokens }: Entry): number {
    return this.#bytes(length + Math.ceil(this.#options.reservedShare * Math.max(0, mostTokens - length)));
  }

  // 2. Admission

  /** Admits whom there is room for. For the first one without room a running request may have to go: into `preempt`. */
  #admitAll(preempt: string[]): string[] {
    const start: string[] = [];
    for (let next = this.#nextToAdmit(); next !== undefined; next = this.#nextToAdmit()) {
      if (this.#hasRoomFor(next)) {
        start.push(this.#admit(next));
        continue;
      }
      const victim = this.#displacedBy(next);
      if (victim === undefined) return start;
      preempt.push(this.#preempt(victim));
      this.#promisedTo = next.id;
      return start;
    }
    return start;
  }

  #nextToAdmit(): Entry | undefined {
    if (this.#waiting.size === 0) return undefined;
    const promised = this.#entries.get(this.#promisedTo ?? "");
    if (promised?.state === "waiting") return promised;
    const underWay = new Map<string, number>();
    for (const { key, length, computed } of this.#active())
      underWay.set(key, (underWay.get(key) ?? 0) + (length - computed > 1 ? length - computed : 0));
    // What a key has under way fills a step: more of it would only stand in the way of others.
    const isBusy = ({ key }: Entry) => (underWay.get(key) ?? 0) >= this.#options.maxStepTokens;
    const candidates = this.#waiting.candidates(this.#nowMs, (entry) => !this.#isHeld(entry) && !isBusy(entry));
    const key = this.#admissions.pick(new Set(candidates.keys()));
    return key === undefined ? undefined : candidates.get(key);
  }

  /** Whether a prompt under way computes a prefix of this one; that one then stops where they part, to be remembered there. */
  #isHeld(entry: Entry): boolean {
    if (!this.#options.sharesPrefixes || entry.wantsAllLogits || entry.blocks.length === 0) return false;
    for (const other of this.#active()) {
      if (other.blocks[0] !== entry.blocks[0]) continue;
      const common = Math.min(commonTokens(entry.blocks, other.blocks), lastBlockBefore(entry.length));
      if (common <= other.computed) continue;
      entry.heldSinceMs ??= this.#nowMs;
      if (this.#nowMs - entry.heldSinceMs >= this.#options.sharingPatienceMs) return false;
      other.stop = Math.min(other.stop ?? common, common);
      return true;
    }
    return false;
  }

  #hasRoomFor(entry: Entry): boolean {
    const active = [...this.#active()];
    if (active.length >= this.#options.maxRunning) return false;
    const bytes = active.reduce((sum, other) => sum + this.#predictedBytes(other), this.#predictedBytes(entry));
    return active.length === 0 || bytes <= this.#options.cacheBytes;
  }

  #admit(entry: Entry): string {
    this.#waiting.remove(entry);
    entry.state = "starting";
    entry.heldSinceMs = undefined;
    this.#admissions.charge(entry.key, entry.length);
    return entry.id;
  }

  /** A running request that makes room: of a worse class, or of a key that has more than its share for long enough. */
  #displacedBy(entry: Entry): Entry | undefined {
    const runningOf = new Map<string, number>();
    for (const { key } of this.#active()) runningOf.set(key, (runningOf.get(key) ?? 0) + 1);
    const own = runningOf.get(entry.key) ?? 0;
    const isPatient = this.#nowMs - entry.submittedMs < this.#options.fairnessPatienceMs;
    const victims = [...this.#active()].filter(({ state, key, priority }) => {
      if (state !== "running") return false;
      if (priority !== entry.priority) return priority > entry.priority;
      return !isPatient && runningOf.get(key)! > own + 1;
    });
    return leastImportant(victims);
  }

  // 3. and 4. The step

  #parts(): PlannedPart[] {
    const running = [...this.#active()].filter(({ state }) => state === "running");
    const longest = Math.max(0, ...running.map(({ length }) => length));
    const { maxStepTokens, tokensPerScore } = this.#options;
    const room = Math.min(maxStepTokens, stepTokensAt(longest + maxStepTokens, tokensPerScore));
    const decoding = running.filter(({ length, computed }) => length - computed === 1);
    const parts = this.#decodeParts(decoding, room);
    const decoded = parts.reduce((sum, { tokens, draft }) => sum + tokens + draft, 0);
    const prefilling = running.filter(({ length, computed }) => length - computed > 1);
    const others = decoding.length > 0 || prefilling.length > 1 || this.#waiting.size > 0;
    const tokens = Math.min(room - decoded, this.#budget.prefillTokens(decoded, others));
    for (const { id } of parts) this.#entries.get(id)!.lastStep = this.#steps;
    return [...parts, ...this.#prefillParts(prefilling, tokens)];
  }

  /** Every answer's next token; if a step has no room for all, those go first that waited longest. Then drafts. */
  #decodeParts(decoding: readonly Entry[], room: number): PlannedPart[] {
    const chosen = [...decoding].sort((a, b) => a.lastStep - b.lastStep || a.order - b.order).slice(0, room);
    const spare = (this.#options.cacheBytes - this.runningBytes) / this.#options.bytesPerToken;
    let left = Math.max(0, Math.min(this.#options.maxDraftTokens, room - chosen.length, Math.floor(spare)));
    return chosen.map(({ id, draft, length, mostTokens }, i) => {
      // An even share of what is left: the first in the row are not always the same.
      const fair = Math.ceil(left / (chosen.length - i));
      const drafted = Math.max(0, Math.min(draft, fair, mostTokens - length - 1));
      left -= drafted;
      return { id, tokens: 1, draft: drafted, remember: false };
    });
  }

  #prefillParts(prefilling: readonly Entry[], tokens: number): PlannedPart[] {
    const classOf = (entry: Entry) => agedClass(entry, this.#nowMs, this.#options.agingMs);
    const ordered = [...prefilling].sort((a, b) => classOf(a) - classOf(b) || a.order - b.order);
    const ends = sharePrefill(ordered, { tokens, logits: this.#options.maxPromptLogits, classOf, turns: this.#chunks });
    return [...ends].map(([entry, end]) => {
      entry.lastStep = this.#steps;
      const isStop = end % rememberTokens === 0 || end === entry.stop || end === entry.promptTokens;
      return { id: entry.id, tokens: end - entry.computed, draft: 0, remember: isStop };
    });
  }

  *#active(): Iterable<Entry> {
    for (const entry of this.#entries.values()) if (entry.state !== "waiting") yield entry;
  }
}

/** What a token that was found in the cache costs, beside one that is computed. */
const cachedCost = 0.05;

function lastBlockBefore(length: number): number {
  return Math.floor((length - 1) / blockTokens) * blockTokens;
}

/** Of the worst class the one that came last. */
function leastImportant(entries: readonly Entry[]): Entry | undefined {
  return [...entries].sort((a, b) => b.priority - a.priority || b.order - a.order).at(0);
}
