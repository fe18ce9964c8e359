/**
 * The side that works: what a worker thread does between steps. Plain JavaScript, as all that such a thread loads: Node would load a
 * compiler for TypeScript into every one of them, which takes 10 MB and 25 ms.
 */

/** Places of the int32 words of the control block (control-block.ts). */
export const words = /** @type {const} */ ({
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
});

/** The word `sequence` is the number of the step times this, plus how many workers take part in it: the first ones. */
export const parts = 256;

/** Turns of a loop that a worker waits for the next step before it sleeps: about 100 us. */
const spins = 3000;

/**
 * Returns when the control block says quit. `address` is that of the block for the kernels.
 * @param {import("./control-block.ts").Kernels} kernels
 * @param {Int32Array} block
 * @param {number} address
 * @param {number} worker
 */
export function workUntilQuit(kernels, block, address, worker) {
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
