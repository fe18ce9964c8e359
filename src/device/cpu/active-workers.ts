/**
 * How many workers take part in a step. All of them, on a quiet machine. Where another process keeps a core busy, the worker on
 * that core is off it half of the time and the others wait for it at every barrier: where little lies between two barriers, as in
 * decoding, fewer workers are faster then. Times decide: the count changes after steps with one worker fewer, or one more, took
 * less time.
 * Results do not depend on the count (design: a unit of work is computed the same way whoever takes it).
 */

/** Steps of more tokens have long stretches between barriers, of which a worker takes as much as it gets through: all take part. */
const mostTokens = 16;
/** A count of workers is judged by at least so many steps, and so long a time: a few turns of the system's scheduler. */
const fewestSteps = 4;
const leastMilliseconds = 24;
/** A trial whose steps take so many times as long is over before it has that many. */
const hopeless = 1.25;
/**
 * Beside a busy process a worker is waited for at least this often: at half of the barriers or more (560 commands of 2.8 B parameters:
 * 260 to 600 times). On a quiet machine one wakes late now and then (1 to 10 times).
 */
const millisecondsANap = 15;
const commandsANap = 16;
/** How long a count stays after another one was tried in vain: doubled each time, up to the most. */
const shortestPause = 100;
const longestPause = 1000;

interface Trial {
  readonly workers: number;
  steps: number;
  milliseconds: number;
  naps: number;
  commands: number;
}

export class ActiveWorkers {
  readonly #all: number;
  #now: Trial;
  #other: Trial | undefined;
  /** What a step of `#now` took when its measure was last complete. */
  #measured = 0;
  #tryMoreNext = false;
  #tokens: number | undefined;
  /** Whether the step at hand is one whose time counts. */
  #counts = false;
  #pause = shortestPause;
  #sinceTrial = 0;

  constructor(all: number) {
    this.#all = all;
    this.#now = fresh(all);
  }

  /** The number of workers for a step of so many tokens. Only steps of as many have comparable times. */
  choose(tokens: number): number {
    this.#counts = tokens <= mostTokens;
    if (!this.#counts) return this.#all;
    if (tokens !== this.#tokens) {
      this.#tokens = tokens;
      this.#now = fresh(this.#now.workers);
      this.#other = undefined;
    }
    return (this.#other ?? this.#now).workers;
  }

  /** What the step of so many commands took, and how often a worker of it slept while it waited for another one. */
  tell(milliseconds: number, naps: number, commands: number): void {
    if (!this.#counts) return;
    this.#sinceTrial += milliseconds;
    const trial = this.#other ?? this.#now;
    trial.steps++;
    trial.milliseconds += milliseconds;
    trial.naps += naps;
    trial.commands += commands;
    const measured = trial.milliseconds / trial.steps;
    const isHopeless = trial !== this.#now && measured > hopeless * this.#measured;
    if (trial.milliseconds < leastMilliseconds || (trial.steps < fewestSteps && !isHopeless)) return;
    if (trial === this.#now) {
      this.#now = fresh(trial.workers);
      this.#measured = measured;
      if (this.#sinceTrial >= this.#pause) this.#other = this.#neighbour(trial);
      return;
    }
    this.#other = undefined;
    this.#sinceTrial = 0;
    if (measured < this.#measured) {
      this.#now = fresh(trial.workers);
      this.#measured = measured;
      this.#pause = shortestPause;
    } else {
      this.#pause = Math.min(2 * this.#pause, longestPause);
    }
  }

  /** The count to try next to one that was measured: fewer only if workers had to wait, more and fewer in turns. */
  #neighbour({ workers, naps, steps, milliseconds, commands }: Trial): Trial | undefined {
    const fewestNaps = Math.max(steps, milliseconds / millisecondsANap, commands / commandsANap);
    const fewer = workers > 1 && naps >= fewestNaps;
    const more = workers < this.#all;
    this.#tryMoreNext = more && (!fewer || !this.#tryMoreNext);
    if (this.#tryMoreNext) return fresh(workers + 1);
    return fewer ? fresh(workers - 1) : undefined;
  }
}

function fresh(workers: number): Trial {
  return { workers, steps: 0, milliseconds: 0, naps: 0, commands: 0 };
}
