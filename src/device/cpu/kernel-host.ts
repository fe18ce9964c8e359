/**
 * What the kernels need from the place they run in: memory that they can address, the bytes of weight files, and workers that
 * walk through a program. One host loads the native addon, one the WebAssembly module (in Node and in browsers).
 */
import type { StepOutcome, StoredBytes } from "../device.ts";
import type { Work } from "./control-block.ts";

export interface KernelHost {
  /** The name of the device: "cpu" or "wasm". */
  readonly name: string;
  /** The instruction set that the kernels were compiled for, for people: "AVX-512 VNNI". */
  readonly instructions: string;
  readonly workers: number;
  /** Memory, all 0. Throws a DeviceError when there is none left. */
  allocate(bytes: number): Region;
  /** The address of bytes of a file, mapped or read; they stay until the host is disposed of. */
  place(bytes: StoredBytes): Promise<number>;
  /** Bytes that `place` holds as copies, not as mappings of a file. */
  readonly copiedBytes: number;
  /** Lets all workers run the commands of a step; resolves when the last one is through. `signal` ends it at the next barrier. */
  run(work: Work, signal?: AbortSignal): Promise<StepOutcome>;
  /** Calls `then` when the last worker is gone: from then on nothing reads or writes the memory of programs. */
  whenEnded(then: () => void): void;
  [Symbol.dispose](): void;
}

/** Memory at a fixed address, a multiple of 64. */
export interface Region {
  readonly address: number;
  readonly bytes: number;
  /** A view of it; take it anew after anything was allocated, for memory of WebAssembly moves when it grows. */
  readonly view: Uint8Array;
  free(): void;
}

export function float32View({ view }: Region, elementOffset: number, length: number): Float32Array {
  return new Float32Array(view.buffer, view.byteOffset + 4 * elementOffset, length);
}

export function int32View({ view }: Region, elementOffset: number, length: number): Int32Array {
  return new Int32Array(view.buffer, view.byteOffset + 4 * elementOffset, length);
}

/** The workers of a host: threads of Node, or Web Workers. */
export interface KernelWorkers {
  /** Waits for work that the workers do; the process stays alive meanwhile, and a worker that dies makes it fail. */
  during<T>(work: Promise<T>): Promise<T>;
  whenEnded(then: () => void): void;
}
