/** The engine of every day: a model, its prefix cache in memory and on disk, and the batch engine over both. */
import { basename, join } from "node:path";
import { BatchEngine, type BatchEngineOptions } from "../../engine/batching/batch-engine.ts";
import type {
  EngineEvent,
  EngineInfo,
  EngineRequest,
  EngineStatus,
  RequestImage,
} from "../../engine/batching/engine-port.ts";
import { PrefixCache } from "../../engine/cache/prefix-cache.ts";
import { embeddedModel, type LoadOptions, loadModel } from "../../engine/load-model.ts";
import type { Model } from "../../engine/model.ts";
import { digestOfModel } from "../../engine/model-digest.ts";
import { withoutUndefined } from "../../engine/without-undefined.ts";
import { defaultCacheDirectory } from "../cache-directory.ts";
import { type CacheMemory, cacheMemory } from "./cache-memory.ts";
import type { HostedEngine } from "./engine-messages.ts";

export interface ModelEngineOptions
  extends Pick<
    LoadOptions,
    "device" | "threads" | "activations" | "instructions" | "contextLength" | "engramCacheBytes" | "drafting"
  > {
  /** Folder or .gguf file; default: the embedded model. */
  readonly model?: string;
  /** Name that clients see; default: that of the folder or file. */
  readonly servedName?: string;
  readonly cacheDirectory?: string;
  /** Bytes of the prefix cache on disk; 0: none. */
  readonly cacheDiskBytes?: number;
  /** Of all caches in memory, those of running requests among them; 0: no prompt is remembered. Default: an eighth of the machine's. */
  readonly cacheMemoryBytes?: number;
  readonly maxRunning?: number;
  /** Load what reads images, where the model has it. */
  readonly images?: boolean;
  /** Images of a request, bytes of a file and pixels of an image at most. */
  readonly maxImages?: number;
  readonly maxImageBytes?: number;
  readonly maxImagePixels?: number;
}

const defaultDiskBytes = 8e9;
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
    images: options.images ?? true,
    imageLimits: withoutUndefined({ maxBytes: options.maxImageBytes, maxPixels: options.maxImagePixels }),
    onProgress: (done, total) => onProgress(done / total),
  });
  const memory = cacheMemory(options.cacheMemoryBytes);
  const cache = await openCache(model, reference, options, memory);
  const loadSeconds = (performance.now() - started) / 1000;
  const engine = new BatchEngine(model, cache, { ...batchOptions(options, memory), loadSeconds });
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

  prepareImage(source: string): Promise<RequestImage> {
    return this.#engine.prepareImage(source);
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

async function openCache(
  model: Model,
  reference: string,
  options: ModelEngineOptions,
  memory: CacheMemory,
): Promise<PrefixCache> {
  const budgetBytes = options.cacheDiskBytes ?? defaultDiskBytes;
  const directory = join(options.cacheDirectory ?? defaultCacheDirectory(), "kv");
  return PrefixCache.open({
    runner: model.runner,
    modelDigest: await digestOfModel(reference),
    memoryBudgetBytes: memory.rememberedBytes,
    store: budgetBytes === 0 ? "off" : { directory, budgetBytes },
  });
}

function loadOptions({
  device,
  threads,
  activations,
  instructions,
  contextLength,
  engramCacheBytes,
  drafting = "auto",
}: ModelEngineOptions): LoadOptions {
  return withoutUndefined({ device, threads, activations, instructions, contextLength, engramCacheBytes, drafting });
}

function batchOptions(
  { maxRunning, maxImages }: ModelEngineOptions,
  { runningBytes }: CacheMemory,
): BatchEngineOptions {
  return {
    ...(maxImages === undefined ? {} : { maxImages }),
    scheduling: { cacheBytes: runningBytes, ...(maxRunning === undefined ? {} : { maxRunning }) },
  };
}

function nameOf(reference: string): string {
  return basename(reference).replace(/\.gguf$/, "");
}
