/** Keeps long work on the event loop's thread from holding up timers, sockets and signals. */
import { yieldToEventLoop } from "../../device/event-loop.ts";

/** What others wait at most, beside one piece of the work. */
const mostMs = 8;

export class Pacer {
  #since = performance.now();

  /** Between two pieces of work: lets others go first when this has gone on for long. */
  async pause(): Promise<void> {
    if (performance.now() - this.#since < mostMs) return;
    await yieldToEventLoop();
    this.#since = performance.now();
  }

  /** The work was interrupted anyway. */
  restart(): void {
    this.#since = performance.now();
  }
}
