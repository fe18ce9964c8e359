/** Worker threads of Node that run kernels, natively or in WebAssembly. They do not keep the process alive while they wait. */
import { Worker } from "node:worker_threads";
import type { KernelWorkers } from "../../device/cpu/kernel-host.ts";
import type { WasmStart } from "../../device/cpu/wasm-host.ts";
import { deviceDisposed } from "../../device/device.ts";
import { DeviceError } from "../../errors.ts";

/** What a worker needs to begin (see kernel-worker.ts). */
export type WorkerStart =
  | WasmStart
  | { readonly kind: "native"; readonly addon: string; readonly control: Uint8Array; readonly address: number };

/** `onFailure` is called when a thread dies: the others must not wait for it. */
export function startWorkers(count: number, start: WorkerStart, onFailure: () => void): KernelWorkers {
  // In the repository TypeScript runs as it is; the package holds JavaScript.
  const file = new URL(import.meta.url.endsWith(".ts") ? "./kernel-worker.ts" : "./kernel-worker.js", import.meta.url);
  const failed = Promise.withResolvers<never>();
  failed.promise.catch(() => {}); // it is heard in `during`
  const ended: Promise<void>[] = [];
  const workers = Array.from({ length: count }, (_, index) => {
    // Options of the program's command line, such as --input-type, are not for it; it prints nothing, and what would pipe its
    // output to that of the program stays away.
    const apart = { execArgv: [], stdout: true, stderr: true };
    const worker = new Worker(file, { workerData: { ...start, index }, name: `freehold-${index}`, ...apart });
    worker.unref();
    worker.on("error", (error) => {
      onFailure();
      failed.reject(
        new DeviceError(`A thread of the kernels failed: ${error.message}`, { code: "worker", cause: error }),
      );
    });
    ended.push(new Promise((resolve) => worker.on("exit", () => resolve())));
    return worker;
  });
  // A step that waits for workers that were told to quit would wait for ever.
  void Promise.all(ended).then(() => failed.reject(deviceDisposed()));
  let running = 0;
  return {
    async during(work) {
      // Programs share the threads: a step of one ends while another still waits for its turn.
      if (running++ === 0) workers[0]!.ref();
      try {
        return await Promise.race([work, failed.promise]);
      } finally {
        if (--running === 0) workers[0]!.unref();
      }
    },
    whenEnded(then) {
      void Promise.all(ended).then(then);
    },
  };
}
