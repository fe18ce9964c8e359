/** The kernels as a WebAssembly module: one instance a worker, all on one shared memory. */

/**
 * `stack` is the end of this worker's stack in the memory: stacks grow downwards.
 * @param {WebAssembly.Module} module
 * @param {WebAssembly.Memory} memory
 * @param {number} stack
 * @returns {import("./control-block.ts").Kernels}
 */
export function instantiateKernels(module, memory, stack) {
  const { exports } = new WebAssembly.Instance(module, { env: { memory } });
  const { set_stack, work } = /** @type {Exports} */ (exports);
  set_stack(stack);
  return { work };
}

/** @typedef {{ set_stack(end: number): void, work: import("./control-block.ts").Kernels["work"] }} Exports */
