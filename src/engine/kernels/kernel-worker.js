/** The program of a worker thread: it loads the kernels and works until it is told to quit. */
import { createRequire } from "node:module";
import { workerData } from "node:worker_threads";
import { instantiateKernels } from "../../device/cpu/wasm-kernels.js";
import { workUntilQuit } from "../../device/cpu/work-until-quit.js";

const start = /** @type {import("./worker-threads.ts").WorkerStart & { index: number }} */ (workerData);
if (start.kind === "native") {
  const { buffer, byteOffset, byteLength } = start.control;
  const words = new Int32Array(buffer, byteOffset, byteLength / 4);
  workUntilQuit(createRequire(import.meta.url)(start.addon), words, start.address, start.index);
} else {
  const words = new Int32Array(start.memory.buffer, start.address, 64);
  const stack = /** @type {number} */ (start.stacks[start.index]);
  workUntilQuit(instantiateKernels(start.module, start.memory, stack), words, start.address, start.index);
}
