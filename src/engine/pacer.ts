/** Keeps long work on the event loop's thread from holding up timers, sockets and signals. */
import { yieldToEventLoop } from "../device/event-loop.ts";
import { finishWithPauses } from "../finish-steps.ts";

export class Pacer {
  readonly #mostMs: number;
  #since = performance.now();

  /** `mostMs`: what others wait at most, beside one piece of the work. */
  constructor(mostMs = 8) {
    this.#mostMs = mostMs;
  }

  /** Between two pieces of work: lets others go first when this has gone on for long. */
  async pause(): Promise<void> {
    if (performance.now() - this.#since < this.#mostMs) return;
    await yieldToEventLoop();
    this.#since = performance.now();
  }

  /** Work in steps, to its end. */
  finish<Result>(steps: Iterator<undefined, Result>): Promise<Result> {
    return finishWithPauses(steps, () => this.pause());
  }

  /** The work was interrupted anyway. */
  restart(): void {
    this.#since = performance.now();
  }
}
