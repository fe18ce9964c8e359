/** The kernels as a WebAssembly module: one instance a worker, all on one shared memory. */
import type { Kernels } from "./control-block.ts";

/** `stack` is the end of this worker's stack in the memory: stacks grow downwards. */
export function instantiateKernels(module: WebAssembly.Module, memory: WebAssembly.Memory, stack: number): Kernels {
  const { exports } = new WebAssembly.Instance(module, { env: { memory } });
  const { set_stack: setStack, work } = exports as {
    set_stack(end: number): void;
    work(control: number, worker: number, sequence: number, spins: number): number;
  };
  setStack(stack);
  return { work };
}
