/** The shared memory of the WebAssembly kernels, and who has which part of it: the lowest gap that is large enough is given. */
import { DeviceError } from "../../errors.ts";
import type { Region } from "./kernel-host.ts";

const pageBytes = 65536;
/** 4 GiB less one page, so that every address and length fits 32 bits. */
const mostPages = 65535;
const stackBytes = 256 * 1024;

export class WasmMemory {
  readonly memory: WebAssembly.Memory;
  /** Parts in use, by address. */
  readonly #used: { readonly address: number; readonly bytes: number }[] = [];
  readonly #begin: number;

  /** `module` says where its own data ends. */
  constructor(module: WebAssembly.Module) {
    this.memory = new WebAssembly.Memory({ initial: 16, maximum: mostPages + 1, shared: true });
    const { __heap_base: end } = new WebAssembly.Instance(module, { env: { memory: this.memory } }).exports;
    this.#begin = Math.ceil((end as WebAssembly.Global).value / 64) * 64;
  }

  allocate(bytes: number): Region {
    const size = Math.max(64, Math.ceil(bytes / 64) * 64);
    let address = this.#begin;
    let index = 0;
    for (; index < this.#used.length; index++) {
      const next = this.#used[index]!;
      if (next.address - address >= size) break;
      address = next.address + next.bytes;
    }
    this.#grow(address + size);
    const part = { address, bytes: size };
    this.#used.splice(index, 0, part);
    const { memory } = this;
    new Uint8Array(memory.buffer, address, size).fill(0);
    return {
      address,
      bytes,
      get view() {
        return new Uint8Array(memory.buffer, address, bytes);
      },
      free: () => {
        const at = this.#used.indexOf(part);
        if (at >= 0) this.#used.splice(at, 1);
      },
    };
  }

  /** The end of a new stack. */
  allocateStack(): number {
    return this.allocate(stackBytes).address + stackBytes;
  }

  #grow(end: number): void {
    const missing = Math.ceil((end - this.memory.buffer.byteLength) / pageBytes);
    if (missing <= 0) return;
    try {
      if (end > mostPages * pageBytes) throw new RangeError("beyond 4 GiB");
      this.memory.grow(missing);
    } catch (error) {
      throw new DeviceError(`The WebAssembly memory cannot grow to ${end} bytes`, {
        code: "memory",
        hint: "It holds 4 GiB at most; use the native kernels (--device cpu) for larger models",
        cause: error,
      });
    }
  }
}
