/** The memory through which workers are told what to run and say that they are through: struct Control of kernels/program.h. */
import { DeviceError } from "../../errors.ts";
import { deviceDisposed, type StepOutcome } from "../device.ts";
import { ActiveWorkers } from "./active-workers.ts";
import type { Region } from "./kernel-host.ts";

export const controlBytes = 256;

/** Places of the int32 words. */
export const words = {
  sequence: 0,
  finished: 1,
  workers: 2,
  body: 3,
  done: 14,
  quit: 15,
  generation: 32,
  stopped: 33,
  naps: 49,
  stop: 50,
} as const;

/** The word `sequence` is the number of the step times this, plus how many workers take part in it: the first ones. */
const parts = 256;
export const mostWorkers = parts - 1;

/** Turns of a loop that a worker waits for the next step before it sleeps: about 100 us. */
const spins = 3000;

/** 32 sets of one cursor a worker, each in a cache line of its own. */
export function cursorBytes(workers: number): number {
  return 32 * workers * 64;
}

/** A step to run: the commands, their number, scratch memory for every worker, and the tokens of the step. */
export interface Work {
  readonly commands: number;
  readonly count: number;
  readonly scratch: number;
  readonly scratchBytes: number;
  readonly tokens: number;
}

/** What a worker calls: the addon, or an instance of the WebAssembly module. */
export interface Kernels {
  /**
   * Waits for a step other than `sequence` that the worker takes part in, and runs it: 0 none came; else the step's sequence word
   * as a positive number, times 2, plus 1 for the worker that was through last.
   */
  work(control: number, worker: number, sequence: number, spins: number): number;
}

/** The side that gives work. */
export class ControlBlock {
  readonly #words: Int32Array;
  readonly #numbers: Float64Array;
  readonly #active: ActiveWorkers;
  #number = 0;
  #last: Promise<unknown> = Promise.resolve();

  constructor({ view }: Region, workers: number, body: number, cursors: number, active = new ActiveWorkers(workers)) {
    if (workers > mostWorkers)
      throw new DeviceError(`${workers} workers are more than the ${mostWorkers} that a step can have`);
    this.#active = active;
    this.#words = new Int32Array(view.buffer, view.byteOffset, controlBytes / 4);
    this.#numbers = new Float64Array(view.buffer, view.byteOffset + 16, 5);
    this.#words[words.workers] = workers;
    this.#words[words.body] = body;
    this.#numbers[4] = cursors;
  }

  /**
   * Runs a step when those that were asked for earlier are done; resolves when all workers are through with it. An aborted
   * `signal` makes that at the next barrier.
   */
  run(work: Work, signal?: AbortSignal): Promise<StepOutcome> {
    const step = this.#last.then(() => this.#runUnlessAborted(work, signal));
    this.#last = step;
    return step;
  }

  async #runUnlessAborted(work: Work, signal: AbortSignal | undefined): Promise<StepOutcome> {
    this.#requireOpen();
    if (signal?.aborted) return "stopped";
    const stop = () => Atomics.store(this.#words, words.stop, 1);
    this.#words[words.stop] = 0;
    signal?.addEventListener("abort", stop);
    try {
      return await this.#run(work);
    } finally {
      signal?.removeEventListener("abort", stop);
    }
  }

  async #run({ commands, count, scratch, scratchBytes, tokens }: Work): Promise<StepOutcome> {
    this.#numbers.set([commands, count, scratch, scratchBytes]);
    this.#words[words.finished] = 0;
    this.#words[words.stopped] = 0;
    const before = Atomics.load(this.#words, words.done);
    const naps = Atomics.load(this.#words, words.naps);
    const active = this.#active.choose(tokens);
    const started = performance.now();
    this.#number++;
    Atomics.store(this.#words, words.sequence, this.#number * parts + active);
    Atomics.notify(this.#words, words.sequence);
    // A worker that was preempted between its last add and its notify wakes the waiting for the NEXT step: look again.
    while (Atomics.load(this.#words, words.done) === before) {
      await Atomics.waitAsync(this.#words, words.done, before).value;
    }
    this.#requireOpen();
    if (this.#words[words.stopped] === 1) return "stopped";
    this.#active.tell(performance.now() - started, Atomics.load(this.#words, words.naps) - naps, count);
    return "done";
  }

  #requireOpen(): void {
    if (Atomics.load(this.#words, words.quit) === 1) throw deviceDisposed();
  }

  /** Ends the workers, in the middle of a step at its next barrier. Steps that run or wait fail. */
  quit(): void {
    Atomics.store(this.#words, words.quit, 1);
    Atomics.store(this.#words, words.stop, 1);
    Atomics.add(this.#words, words.sequence, 1);
    Atomics.notify(this.#words, words.sequence);
  }
}

/** The side that works: returns when the control block says quit. `address` is that of the block for the kernels. */
export function workUntilQuit(kernels: Kernels, block: Int32Array, address: number, worker: number): void {
  let sequence = 0;
  for (;;) {
    if (Atomics.load(block, words.quit) === 1) return;
    const result = kernels.work(address, worker, sequence, spins);
    if (result === 0) {
      const now = Atomics.load(block, words.sequence);
      if (now !== sequence && worker < (now >>> 0) % parts) continue; // it came just now
      sequence = now;
      Atomics.wait(block, words.sequence, now);
      continue;
    }
    sequence = Math.floor(result / 2) | 0;
    if (result % 2 === 0) continue;
    Atomics.add(block, words.done, 1);
    Atomics.notify(block, words.done);
  }
}
