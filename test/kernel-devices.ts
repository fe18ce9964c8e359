/** Every body of the kernels: the native ones of this kind of processor and the WebAssembly modules. */
import { test } from "node:test";
import { type Activations, KernelDevice } from "../src/device/cpu/kernel-device.ts";
import { kernelBodies, NativeHost } from "../src/engine/kernels/native-host.ts";
import { createWasmHost } from "../src/engine/kernels/node-wasm-host.ts";

export interface KernelBody {
  /** "native avx2", "wasm relaxed" ... */
  readonly name: string;
  /** Options of loadModel that choose it. */
  readonly device: "cpu" | "wasm";
  readonly instructions: string;
  create(options?: { workers?: number; activations?: Activations }): Promise<KernelDevice>;
}

const native = kernelBodies();

export const kernelBodiesHere: readonly KernelBody[] = [
  ...native
    .filter(({ available }) => available)
    .map(({ name: body }) => ({
      name: `native ${body}`,
      device: "cpu" as const,
      instructions: body,
      create: async ({ workers = 2, activations = "float32" }: { workers?: number; activations?: Activations } = {}) =>
        new KernelDevice(new NativeHost({ workers, body }), activations),
    })),
  // Under emulation the WebAssembly modules say nothing new and take minutes.
  ...(process.env.FREEHOLD_TEST_BODIES === "native" ? [] : ["simd128", "relaxed"]).map((body) => ({
    name: `wasm ${body}`,
    device: "wasm" as const,
    instructions: body,
    create: async ({ workers = 2, activations = "float32" }: { workers?: number; activations?: Activations } = {}) =>
      new KernelDevice(await createWasmHost({ workers, body }), activations),
  })),
];

/** The native body that is taken by itself. */
export const bestBody: KernelBody = kernelBodiesHere.findLast(({ name }) => name.startsWith("native"))!;

/** A body that this machine cannot run stands in the output, with the reason. */
export function reportBodiesElsewhere(): void {
  for (const { name, instructions } of native.filter(({ available }) => !available)) {
    test(`native ${name}`, { skip: `this processor does not have ${instructions}` }, () => {});
  }
}
