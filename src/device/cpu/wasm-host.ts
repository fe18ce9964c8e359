/** The host of the WebAssembly kernels: one shared memory of up to 4 GiB, workers with an instance each, in Node and in browsers. */
import type { StepOutcome, StoredBytes } from "../device.ts";
import { ControlBlock, controlBytes, cursorBytes, type Work } from "./control-block.ts";
import type { KernelHost, KernelWorkers, Region } from "./kernel-host.ts";
import { WasmMemory } from "./wasm-memory.ts";

/** The modules in prebuilt/, the better one first: an engine that cannot run one fails to validate it. */
export const wasmModules = [
  { name: "relaxed", file: "freehold-wasm-relaxed.wasm", instructions: "WebAssembly relaxed SIMD" },
  { name: "simd128", file: "freehold-wasm-simd128.wasm", instructions: "WebAssembly SIMD" },
] as const;

/** What a worker of the WebAssembly kernels needs to begin. */
export interface WasmStart {
  readonly kind: "wasm";
  readonly module: WebAssembly.Module;
  readonly memory: WebAssembly.Memory;
  /** Address of the control block. */
  readonly address: number;
  /** End of each worker's stack. */
  readonly stacks: readonly number[];
}

export interface WasmHostParts {
  readonly module: WebAssembly.Module;
  readonly instructions: string;
  readonly workers: number;
  /** Starts the workers; `onFailure` is called when one dies. */
  readonly start: (start: WasmStart, onFailure: () => void) => KernelWorkers;
}

/** Bytes that are read from a file at once. */
const pieceBytes = 8 << 20;

export class WasmHost implements KernelHost {
  readonly name = "wasm";
  readonly instructions: string;
  readonly workers: number;
  readonly #memory: WasmMemory;
  readonly #block: ControlBlock;
  readonly #threads: KernelWorkers;
  #copiedBytes = 0;

  constructor({ module, instructions, workers, start }: WasmHostParts) {
    this.instructions = instructions;
    this.workers = workers;
    this.#memory = new WasmMemory(module);
    const control = this.#memory.allocate(controlBytes);
    const cursors = this.#memory.allocate(cursorBytes(workers));
    this.#block = new ControlBlock(control, workers, 0, cursors.address);
    const stacks = Array.from({ length: workers }, () => this.#memory.allocateStack());
    const { memory } = this.#memory;
    this.#threads = start({ kind: "wasm", module, memory, address: control.address, stacks }, () => this.#block.quit());
  }

  allocate(bytes: number): Region {
    return this.#memory.allocate(bytes);
  }

  async place({ source, offset, length }: StoredBytes): Promise<number> {
    const region = this.#memory.allocate(length);
    for (let done = 0; done < length; done += pieceBytes) {
      const piece = await source.read(offset + done, Math.min(pieceBytes, length - done));
      region.view.set(piece, done);
    }
    this.#copiedBytes += length;
    return region.address;
  }

  get copiedBytes(): number {
    return this.#copiedBytes;
  }

  run(work: Work, signal?: AbortSignal): Promise<StepOutcome> {
    return this.#threads.during(this.#block.run(work, signal));
  }

  whenEnded(then: () => void): void {
    this.#threads.whenEnded(then);
  }

  [Symbol.dispose](): void {
    this.#block.quit();
  }
}
