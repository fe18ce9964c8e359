/**
 * The turn of one request in the event loop. Work that is done in steps asks between them whether it has lasted so long that others
 * go first; what is quick never waits.
 */
import { setImmediate as othersTurn } from "node:timers/promises";

const mostMs = 5;

export class Turn {
  #startedMs = performance.now();

  /** Resolves at once, or in a later turn when this one was long. */
  async mayPass(): Promise<void> {
    if (performance.now() - this.#startedMs < mostMs) return;
    await othersTurn();
    this.#startedMs = performance.now();
  }
}
