/** A Web Worker of page.ts: it works until the page is closed. */
import { workUntilQuit } from "../../src/device/cpu/control-block.ts";
import { instantiateKernels } from "../../src/device/cpu/wasm-kernels.ts";

interface Start {
  readonly module: WebAssembly.Module;
  readonly memory: WebAssembly.Memory;
  readonly address: number;
  readonly stack: number;
  readonly index: number;
}

(globalThis as unknown as { onmessage: (event: { data: Start }) => void }).onmessage = ({ data }) => {
  const { module, memory, address, stack, index } = data;
  const words = new Int32Array(memory.buffer, address, 64);
  workUntilQuit(instantiateKernels(module, memory, stack), words, address, index);
};
