/** The engine of every day: a model, its prefix cache in memory and on disk, and the batch engine over both. */
import { totalmem } from "node:os";
import { basename, join } from "node:path";
import { BatchEngine, type BatchEngineOptions } from "../../engine/batching/batch-engine.ts";
import type { EngineEvent, EngineInfo, EngineRequest, EngineStatus } from "../../engine/batching/engine-port.ts";
import { PrefixCache } from "../../engine/cache/prefix-cache.ts";
import { embeddedModel, type LoadOptions, loadModel } from "../../engine/load-model.ts";
import type { Model } from "../../engine/model.ts";
import { digestOfModel } from "../../engine/model-digest.ts";
import { defaultCacheDirectory } from "../cache-directory.ts";
import type { HostedEngine } from "./engine-messages.ts";

export interface ModelEngineOptions
  extends Pick<LoadOptions, "device" | "threads" | "activations" | "instructions" | "contextLength" | "drafting"> {
  /** Folder or .gguf file; default: the embedded model. */
  readonly model?: string;
  /** Name that clients see; default: that of the folder or file. */
  readonly servedName?: string;
  readonly cacheDirectory?: string;
  /** Bytes of the prefix cache on disk; 0: none. */
  readonly cacheDiskBytes?: number;
  readonly cacheMemoryBytes?: number;
  readonly maxRunning?: number;
}

const defaultDiskBytes = 8e9;
const mostMemoryBytes = 4 * 2 ** 30;
/** An idle engine shows that its event loop turns. */
const tickMs = 500;

export async function startEngine(
  options: ModelEngineOptions,
  onProgress: (loaded: number) => void,
): Promise<HostedEngine> {
  const reference = options.model ?? embeddedModel;
  const started = performance.now();
  const model = await loadModel(reference, {
    ...loadOptions(options),
    onProgress: (done, total) => onProgress(done / total),
  });
  const cache = await openCache(model, reference, options);
  const loadSeconds = (performance.now() - started) / 1000;
  const engine = new BatchEngine(model, cache, { ...batchOptions(options), loadSeconds });
  return new ModelEngine(model, engine, options.servedName ?? nameOf(reference));
}

class ModelEngine implements HostedEngine {
  readonly info: EngineInfo;
  readonly #model: Model;
  readonly #engine: BatchEngine;
  readonly #timer: NodeJS.Timeout;

  constructor(model: Model, engine: BatchEngine, name: string) {
    this.#model = model;
    this.#engine = engine;
    // The place of the files is nobody's business.
    this.info = { ...engine.info, name };
    this.#timer = setInterval(() => engine.tick(), tickMs).unref();
  }

  submit(request: EngineRequest, listener: (event: EngineEvent) => void): void {
    this.#engine.submit(request, listener);
  }

  cancel(id: string, keptTokens?: number): void {
    this.#engine.cancel(id, keptTokens);
  }

  get status(): EngineStatus {
    return this.#engine.status;
  }

  async close(): Promise<void> {
    clearInterval(this.#timer);
    await this.#engine.close();
    this.#model[Symbol.dispose]();
  }
}

async function openCache(model: Model, reference: string, options: ModelEngineOptions): Promise<PrefixCache> {
  const budgetBytes = options.cacheDiskBytes ?? defaultDiskBytes;
  const directory = join(options.cacheDirectory ?? defaultCacheDirectory(), "kv");
  return PrefixCache.open({
    runner: model.runner,
    modelDigest: await digestOfModel(reference),
    memoryBudgetBytes: options.cacheMemoryBytes ?? Math.min(mostMemoryBytes, Math.floor(totalmem() / 8)),
    store: budgetBytes === 0 ? "off" : { directory, budgetBytes },
  });
}

function loadOptions(options: ModelEngineOptions): LoadOptions {
  const { device, threads, activations, instructions, contextLength, drafting = "auto" } = options;
  return {
    drafting,
    ...(device === undefined ? {} : { device }),
    ...(threads === undefined ? {} : { threads }),
    ...(activations === undefined ? {} : { activations }),
    ...(instructions === undefined ? {} : { instructions }),
    ...(contextLength === undefined ? {} : { contextLength }),
  };
}

function batchOptions({ maxRunning }: ModelEngineOptions): BatchEngineOptions {
  return maxRunning === undefined ? {} : { scheduling: { maxRunning } };
}

function nameOf(reference: string): string {
  return basename(reference).replace(/\.gguf$/, "");
}
