/**
 * A run of the scheduler as text: a line of JSON for each event it heard and each plan it made. Played again, the same events must
 * give the same plans: a scheduling fault that a user met is a file. Traces hold fingerprints of prompts, no text.
 */
import { FormatError } from "../../errors.ts";
import { Scheduler } from "./scheduler.ts";
import type { SchedulerEvent, SchedulerOptions, StepPlan } from "./scheduler-types.ts";

export type TraceLine =
  | { readonly type: "options"; readonly options: SchedulerOptions }
  | { readonly type: "event"; readonly event: SchedulerEvent }
  | { readonly type: "plan"; readonly plan: StepPlan };

/** A scheduler that writes down what it hears and says. */
export class TracedScheduler extends Scheduler {
  readonly #write: (line: string) => void;

  constructor(options: SchedulerOptions, write: (line: string) => void) {
    super(options);
    this.#write = write;
    this.#line({ type: "options", options });
  }

  override handle(event: SchedulerEvent): void {
    this.#line({ type: "event", event });
    super.handle(event);
  }

  override plan(): StepPlan {
    const plan = super.plan();
    this.#line({ type: "plan", plan });
    return plan;
  }

  #line(line: TraceLine): void {
    this.#write(`${JSON.stringify(line)}\n`);
  }
}

/** Plays a trace; returns the first line (from 1) whose plan comes out differently, undefined if all are the same. */
export function replayTrace(text: string): { line: number; expected: StepPlan; found: StepPlan } | undefined {
  let scheduler: Scheduler | undefined;
  for (const [i, json] of text.split("\n").entries()) {
    if (json === "") continue;
    const line = readLine(json, i + 1);
    if (line.type === "options") scheduler = new Scheduler(line.options);
    else if (scheduler === undefined) throw notATrace(i + 1, "does not begin with the options");
    else if (line.type === "event") scheduler.handle(line.event);
    else {
      const found = scheduler.plan();
      if (JSON.stringify(found) !== JSON.stringify(line.plan)) return { line: i + 1, expected: line.plan, found };
    }
  }
  return undefined;
}

function readLine(json: string, line: number): TraceLine {
  try {
    const value = JSON.parse(json) as TraceLine | null; // checked for its kind; traces are our own files
    if (value?.type === "options" || value?.type === "event" || value?.type === "plan") return value;
  } catch (error) {
    throw notATrace(line, "is not JSON", error);
  }
  throw notATrace(line, "is neither options, event nor plan");
}

function notATrace(line: number, what: string, cause?: unknown): FormatError {
  return new FormatError(`The trace ${what}`, {
    where: `line ${line}`,
    hint: "Give a file that a scheduler wrote",
    cause,
  });
}
