/**
 * A step that is being computed, and whether it is ended early when requests of it are cancelled. Stopped, it is lost for all that
 * take part in it: the others compute their part again. That is worth it when most of its tokens were for nobody, wherever
 * between begin and end it is. A step that others have to repeat is not stopped again: who cancels all the time holds nobody up.
 */
import type { Append } from "../model-runner.ts";
import type { Answer } from "./answer.ts";

export interface StepShare {
  readonly answer: Pick<Answer, "isCancelled">;
  readonly append: Pick<Append, "tokenIds">;
}

export class RunningStep {
  readonly #shares: readonly StepShare[];
  readonly #isRepeat: boolean;
  readonly #controller = new AbortController();

  /** `isRepeat`: some of its requests lost their part of the step before. */
  constructor(shares: readonly StepShare[], isRepeat: boolean) {
    this.#shares = shares;
    this.#isRepeat = isRepeat;
  }

  get signal(): AbortSignal {
    return this.#controller.signal;
  }

  /** To be called when a request was cancelled. */
  stopIfWorthIt(): void {
    let [lost, wanted] = [0, 0];
    for (const { answer, append } of this.#shares) {
      if (answer.isCancelled) lost += append.tokenIds.length;
      else wanted += append.tokenIds.length;
    }
    if (wanted === 0 || (lost > wanted && !this.#isRepeat)) this.#controller.abort();
  }
}
