/**
 * The embedded model in a browser: WebAssembly kernels on Web Workers that share memory. The page fetches the weights, answers the
 * recorded prompts and posts what it found to /result; browser.test.ts compares.
 */
import { KernelDevice } from "../../src/device/cpu/kernel-device.ts";
import { WasmHost, type WasmStart, wasmModules } from "../../src/device/cpu/wasm-host.ts";
import { type ModelFiles, openCheckpoint } from "../../src/engine/checkpoint.ts";
import { giveParameter } from "../../src/engine/give-parameter.ts";
import { ModelRunner } from "../../src/engine/model-runner.ts";
import { MemorySource } from "../../src/format/byte-source.ts";

/** What this page uses of the browser; the project's types are those of Node. */
declare class Worker {
  constructor(url: string, options: { type: "module" });
  postMessage(message: unknown): void;
  onerror: (event: { message?: string }) => void;
}
declare const document: { querySelector(selector: string): { textContent: string } };

const folder = "/assets/seed-v4";
const { searchParams } = new URL((globalThis as unknown as { location: { href: string } }).location.href);
const workers = Number(searchParams.get("workers") ?? 2);
const wanted = searchParams.get("module");

const files: ModelFiles = {
  name: folder,
  has: async (file) => (await fetch(`${folder}/${file}`, { method: "HEAD" })).ok,
  list: async () => ["model.safetensors"],
  open: async (file) => new MemorySource(file, new Uint8Array(await (await fetch(`${folder}/${file}`)).arrayBuffer())),
};

/** One Web Worker for each; none of them ever ends before the page does. */
function startWebWorkers(start: WasmStart, onFailure: () => void) {
  const failed = Promise.withResolvers<never>();
  for (let index = 0; index < workers; index++) {
    const worker = new Worker("/test/browser/worker.ts", { type: "module" });
    worker.onerror = ({ message }) => {
      onFailure();
      failed.reject(new Error(`A worker failed: ${message}`));
    };
    const { module, memory, address, stacks } = start;
    worker.postMessage({ module, memory, address, stack: stacks[index], index });
  }
  return { during: async <T>(work: Promise<T>) => Promise.race([work, failed.promise]), whenEnded: () => {} };
}

async function createHost(): Promise<WasmHost> {
  for (const { name, file, instructions } of wasmModules) {
    if (wanted !== null && wanted !== name) continue;
    const bytes = new Uint8Array(await (await fetch(`/src/device/cpu/prebuilt/${file}`)).arrayBuffer());
    if (!WebAssembly.validate(bytes)) continue;
    return new WasmHost({ module: await WebAssembly.compile(bytes), instructions, workers, start: startWebWorkers });
  }
  throw new Error("This browser runs none of the modules");
}

async function answer(): Promise<unknown> {
  const golden = (await (await fetch(`${folder}/golden.json`)).json()) as {
    prompts: { name: string; ids: number[]; greedy: number[] }[];
  };
  const device = new KernelDevice(await createHost());
  const checkpoint = await openCheckpoint(files);
  for (const parameter of checkpoint.parameters) await giveParameter(checkpoint, parameter, device);
  const runner = new ModelRunner(checkpoint.config, device);
  const prompts = [];
  for (const { name, ids, greedy } of golden.prompts.slice(0, 4)) {
    const sequence = runner.createSequence();
    let [logits] = await runner.append({ sequence, tokenIds: ids, outputs: 1 });
    const first = Array.from(logits!);
    const tokens: number[] = [];
    const started = performance.now();
    while (tokens.length < greedy.length) {
      tokens.push(logits!.indexOf(Math.max(...logits!)));
      [logits] = await runner.append({ sequence, tokenIds: tokens.slice(-1), outputs: 1 });
    }
    prompts.push({ name, first, tokens, tokensPerSecond: (tokens.length * 1000) / (performance.now() - started) });
  }
  return { kernels: device.kernels, workers, prompts };
}

async function report(): Promise<void> {
  const result = await answer().catch((error) => ({ error: String(error?.stack ?? error) }));
  document.querySelector("#status").textContent = JSON.stringify(result, undefined, 1).slice(0, 2000);
  await fetch("/result", { method: "POST", body: JSON.stringify(result) });
}

void report();
