/** The host of the native addon in Node: memory of the process, files mapped into it, worker threads. */
import { closeSync, fstatSync, openSync } from "node:fs";
import { createRequire } from "node:module";
import { fileURLToPath } from "node:url";
import type { ActiveWorkers } from "../../device/cpu/active-workers.ts";
import { ControlBlock, controlBytes, cursorBytes, type Kernels, type Work } from "../../device/cpu/control-block.ts";
import type { KernelHost, KernelWorkers, Region } from "../../device/cpu/kernel-host.ts";
import type { StepOutcome, StoredBytes } from "../../device/device.ts";
import { DeviceError } from "../../errors.ts";
import { FileSource } from "../file-source.ts";
import { startWorkers } from "./worker-threads.ts";

/** What the addon exports (kernels/addon.c). Typed arrays stand for the address of their first byte. */
interface Addon extends Kernels {
  address(array: Uint8Array): number;
  map(descriptor: number, bytes: number): number;
  unmap(address: number, bytes: number): void;
  hugePages(array: Uint8Array, bytes: number): void;
  cores(array: Uint8Array, bytes: number): number;
  available(body: number): number;
}

/** The order is that of `bodies` in kernels/bodies.h: the last one that a machine has is the best. */
const bodies: Readonly<Record<string, readonly { readonly name: string; readonly instructions: string }[]>> = {
  x64: [
    { name: "sse2", instructions: "SSE2" },
    { name: "avx2", instructions: "AVX2" },
    { name: "avxvnni", instructions: "AVX2 + VNNI" },
    { name: "avx512", instructions: "AVX-512 VNNI" },
    { name: "amx", instructions: "AVX-512 VNNI + AMX" },
  ],
  arm64: [
    { name: "neon", instructions: "NEON" },
    { name: "dotprod", instructions: "NEON dotprod" },
  ],
};

/** Where the addon for this machine is. */
export function addonPath(): string {
  const name = `freehold-${process.platform}-${process.arch}.node`;
  return fileURLToPath(new URL(`../../device/cpu/prebuilt/${name}`, import.meta.url));
}

/** Throws a DeviceError when there is no addon for this machine, or it cannot be loaded. */
export function loadAddon(): Addon {
  try {
    return createRequire(import.meta.url)(addonPath());
  } catch (error) {
    throw new DeviceError(`The native kernels for ${process.platform} ${process.arch} cannot be loaded`, {
      code: "no-addon",
      hint: "The WebAssembly kernels run everywhere: --device wasm, or auto, which takes them by itself",
      cause: error,
    });
  }
}

export interface BodyInfo {
  readonly name: string;
  readonly instructions: string;
  readonly available: boolean;
}

/** The instruction sets that kernels were compiled for on this kind of processor, and which of them this machine has. */
export function kernelBodies(addon: Addon = loadAddon()): BodyInfo[] {
  return bodies[process.arch]!.map((body, i) => ({ ...body, available: addon.available(i) === 1 }));
}

interface MappedFile {
  readonly address: number;
  readonly bytes: number;
  /** Another one of the same file, which whoever loads the model does not close. */
  readonly descriptor: number | undefined;
}

/** Undefined where the path leads to another file by now, or to none. */
function reopen({ path, descriptor: open }: FileSource): number | undefined {
  try {
    const descriptor = openSync(path, "r");
    const [own, other] = [fstatSync(open), fstatSync(descriptor)];
    if (own.ino === other.ino && own.dev === other.dev) return descriptor;
    closeSync(descriptor);
  } catch {
    // it was removed, and cannot be cut off by its name any more
  }
  return undefined;
}

export interface NativeHostOptions {
  readonly workers: number;
  /** The name of an instruction set. Default: the best that this machine has. */
  readonly body?: string | undefined;
  /** What decides how many of the workers take part in a step. Default: the times of the steps. */
  readonly active?: ActiveWorkers | undefined;
}

export class NativeHost implements KernelHost {
  readonly name = "cpu";
  readonly instructions: string;
  readonly workers: number;
  readonly #addon: Addon;
  readonly #block: ControlBlock;
  readonly #threads: KernelWorkers;
  readonly #mapped = new Map<FileSource, MappedFile>();
  #changed: DeviceError | undefined;
  readonly #copies: Uint8Array[] = [];
  readonly #keepAlive: Region[];

  constructor({ workers, body, active }: NativeHostOptions) {
    this.#addon = loadAddon();
    const all = kernelBodies(this.#addon);
    const index =
      body === undefined ? all.findLastIndex(({ available }) => available) : all.findIndex(({ name }) => name === body);
    const chosen = all[index];
    if (chosen === undefined || !chosen.available) {
      throw new DeviceError(`This machine does not have the instructions "${body}"`, {
        code: "no-instructions",
        hint: `It has ${all
          .filter(({ available }) => available)
          .map(({ name }) => name)
          .join(", ")}`,
      });
    }
    this.instructions = chosen.instructions;
    this.workers = workers;
    const control = this.#shared(controlBytes);
    const cursors = this.#shared(cursorBytes(workers));
    this.#keepAlive = [control, cursors];
    this.#block = new ControlBlock(control, workers, index, cursors.address, active);
    this.#threads = startWorkers(
      workers,
      { kind: "native", addon: addonPath(), control: control.view, address: control.address },
      () => this.#block.quit(),
    );
  }

  allocate(bytes: number): Region {
    let buffer: ArrayBuffer;
    try {
      buffer = new ArrayBuffer(bytes + 64);
    } catch (error) {
      throw new DeviceError(`There is no memory for ${bytes} more bytes`, { code: "memory", cause: error });
    }
    const region = this.#region(buffer, bytes);
    if (bytes >= 4 << 20) this.#addon.hugePages(region.view, bytes);
    return { ...region, free: () => void (buffer.detached || buffer.transfer(0)) };
  }

  async place({ source, offset, length }: StoredBytes): Promise<number> {
    if (source instanceof FileSource) {
      const address = this.#map(source);
      if (address !== 0) return address + offset;
    }
    const bytes = await source.read(offset, length);
    this.#copies.push(bytes);
    return this.#addon.address(bytes);
  }

  get copiedBytes(): number {
    return this.#copies.reduce((total, { byteLength }) => total + byteLength, 0);
  }

  async run(work: Work, signal?: AbortSignal): Promise<StepOutcome> {
    this.#requireWholeFiles();
    return this.#threads.during(this.#block.run(work, signal));
  }

  whenEnded(then: () => void): void {
    this.#threads.whenEnded(then);
  }

  [Symbol.dispose](): void {
    this.#block.quit();
    this.#threads.whenEnded(() => {
      for (const { address, bytes, descriptor } of this.#mapped.values()) {
        this.#addon.unmap(address, bytes);
        if (descriptor !== undefined) closeSync(descriptor);
      }
      this.#mapped.clear();
      this.#keepAlive.length = 0;
    });
  }

  /** The address of a file's first byte; 0 where it cannot be mapped. */
  #map(source: FileSource): number {
    const known = this.#mapped.get(source);
    if (known !== undefined) return known.address;
    const address = this.#addon.map(source.descriptor, source.size);
    if (address !== 0) this.#mapped.set(source, { address, bytes: source.size, descriptor: reopen(source) });
    return address;
  }

  /** To read what was cut off a mapped file would end the process: a step that begins afterwards fails instead. */
  #requireWholeFiles(): void {
    for (const [{ name }, { bytes, descriptor }] of this.#mapped) {
      if (this.#changed !== undefined) break; // what grew again holds other weights
      const size = descriptor === undefined ? bytes : fstatSync(descriptor).size;
      if (size >= bytes) continue;
      this.#changed = new DeviceError(
        `A file of weights was cut off while in use: ${size} of ${bytes} bytes are left`,
        {
          code: "file-changed",
          where: name,
          hint: "Load the model again; to replace a file, write the new one beside it and rename it",
        },
      );
    }
    if (this.#changed !== undefined) throw this.#changed;
  }

  #shared(bytes: number): Region {
    return this.#region(new SharedArrayBuffer(bytes + 64), bytes);
  }

  #region(buffer: ArrayBuffer | SharedArrayBuffer, bytes: number): Region {
    const start = this.#addon.address(new Uint8Array(buffer));
    const skip = (64 - (start % 64)) % 64;
    return { address: start + skip, bytes, view: new Uint8Array(buffer, skip, bytes), free: () => {} };
  }
}
