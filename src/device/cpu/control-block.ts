/** The memory through which workers are told what to run and say that they are through: struct Control of kernels/program.h. */
import type { StepOutcome } from "../device.ts";
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
  stop: 49,
} as const;

/** Turns of a loop that a worker waits for the next step before it sleeps: about 100 us. */
const spins = 3000;

/** 32 sets of one cursor a worker, each in a cache line of its own. */
export function cursorBytes(workers: number): number {
  return 32 * workers * 64;
}

/** A step to run: the commands, their number, and scratch memory for every worker. */
export interface Work {
  readonly commands: number;
  readonly count: number;
  readonly scratch: number;
  readonly scratchBytes: number;
}

/** What a worker calls: the addon, or an instance of the WebAssembly module. */
export interface Kernels {
  /** Waits for a step other than `sequence`, and runs it: 0 none came, 1 done, 2 done as the last worker. */
  work(control: number, worker: number, sequence: number, spins: number): number;
}

/** The side that gives work. */
export class ControlBlock {
  readonly #words: Int32Array;
  readonly #numbers: Float64Array;
  #last: Promise<unknown> = Promise.resolve();

  constructor({ view }: Region, workers: number, body: number, cursors: number) {
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

  async #run({ commands, count, scratch, scratchBytes }: Work): Promise<StepOutcome> {
    this.#numbers.set([commands, count, scratch, scratchBytes]);
    this.#words[words.finished] = 0;
    this.#words[words.stopped] = 0;
    const before = Atomics.load(this.#words, words.done);
    Atomics.add(this.#words, words.sequence, 1);
    Atomics.notify(this.#words, words.sequence);
    // A worker that was preempted between its last add and its notify wakes the waiting for the NEXT step: look again.
    while (Atomics.load(this.#words, words.done) === before) {
      await Atomics.waitAsync(this.#words, words.done, before).value;
    }
    return this.#words[words.stopped] === 0 ? "done" : "stopped";
  }

  quit(): void {
    Atomics.store(this.#words, words.quit, 1);
    Atomics.add(this.#words, words.sequence, 1);
    Atomics.notify(this.#words, words.sequence);
  }
}

/** The side that works: returns when the control block says quit. `address` is that of the block for the kernels. */
export function workUntilQuit(kernels: Kernels, block: Int32Array, address: number, worker: number): void {
  let sequence = 0;
  for (;;) {
    if (Atomics.load(block, words.quit) === 1) return;
    const status = kernels.work(address, worker, sequence, spins);
    if (status === 0) {
      Atomics.wait(block, words.sequence, sequence);
      continue;
    }
    sequence = (sequence + 1) | 0;
    if (status === 1) continue;
    Atomics.add(block, words.done, 1);
    Atomics.notify(block, words.done);
  }
}
