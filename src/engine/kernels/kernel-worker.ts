/** The program of a worker thread: it loads the kernels and works until it is told to quit. */
import { createRequire } from "node:module";
import { workerData } from "node:worker_threads";
import { workUntilQuit } from "../../device/cpu/control-block.ts";
import { instantiateKernels } from "../../device/cpu/wasm-kernels.ts";
import type { WorkerStart } from "./worker-threads.ts";

const start = workerData as WorkerStart & { readonly index: number }; // made by startWorkers
if (start.kind === "native") {
  const { buffer, byteOffset } = start.control;
  const words = new Int32Array(buffer, byteOffset, start.control.byteLength / 4);
  workUntilQuit(createRequire(import.meta.url)(start.addon), words, start.address, start.index);
} else {
  const words = new Int32Array(start.memory.buffer, start.address, 64);
  const kernels = instantiateKernels(start.module, start.memory, start.stacks[start.index]!);
  workUntilQuit(kernels, words, start.address, start.index);
}
