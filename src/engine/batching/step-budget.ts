/**
 * How many tokens of prompts a step may hold, learnt from the steps that were measured: a step in which others wait for their next
 * token lasts 20 to 50 ms, one that nobody waits for may be as large as the engine allows. Whole blocks of 128 tokens, at least one.
 */
import { blockTokens } from "../../tensor/paging.ts";

/** What a step lasts that others wait for. */
const targetMs = 35;
/** Share of a new measurement in the mean. */
const weight = 0.25;

export class StepBudget {
  readonly #most: number;
  #msPerToken: number | undefined;

  constructor(most: number) {
    this.#most = most;
  }

  /** A step of so many tokens lasted so long. Small steps tell what a step costs, not what a token does. */
  observe(tokens: number, milliseconds: number): void {
    if (tokens < blockTokens / 2 || !(milliseconds > 0)) return;
    const found = milliseconds / tokens;
    this.#msPerToken = this.#msPerToken === undefined ? found : this.#msPerToken + weight * (found - this.#msPerToken);
  }

  /** Tokens of prompts beside `decoded` tokens of answers. */
  prefillTokens(decoded: number, doesAnyoneWait: boolean): number {
    const room = this.#most - decoded;
    if (!doesAnyoneWait) return Math.max(0, room);
    const wanted = this.#msPerToken === undefined ? 2 * blockTokens : targetMs / this.#msPerToken - decoded;
    const blocks = Math.max(1, Math.floor(wanted / blockTokens));
    return Math.max(0, Math.min(room, blocks * blockTokens));
  }
}
