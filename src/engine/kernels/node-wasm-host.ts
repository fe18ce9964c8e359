/** The WebAssembly kernels in Node: the module that this engine can run, and worker threads. */
import { readFile } from "node:fs/promises";
import { WasmHost, wasmModules } from "../../device/cpu/wasm-host.ts";
import { DeviceError } from "../../errors.ts";
import { startWorkers } from "./worker-threads.ts";

/** `body` is "relaxed" or "simd128"; default: the first of them that this engine runs. */
export async function createWasmHost({
  workers,
  body,
}: {
  workers: number;
  body?: string | undefined;
}): Promise<WasmHost> {
  const wanted = wasmModules.filter(({ name }) => body === undefined || name === body);
  for (const { file, instructions } of wanted) {
    const bytes = await readFile(new URL(`../../device/cpu/prebuilt/${file}`, import.meta.url));
    if (!WebAssembly.validate(bytes)) continue;
    const module = await WebAssembly.compile(bytes);
    const start = (work: Parameters<typeof startWorkers>[1], onFailure: () => void) =>
      startWorkers(workers, work, onFailure);
    return new WasmHost({ module, instructions, workers, start });
  }
  throw new DeviceError(`This JavaScript engine cannot run the WebAssembly kernels "${body ?? "simd128"}"`, {
    code: "no-instructions",
    hint: `There are ${wasmModules.map(({ name }) => name).join(" and ")}; Node 24 runs both`,
  });
}
