/** The engine behind `freehold serve`: a model, a cache of what was computed with it, and the batch engine over both. */
import { homedir } from "node:os";
import { basename, join, resolve } from "node:path";
import { z } from "zod";
import { BatchEngine } from "../../engine/batching/batch-engine.ts";
import { PrefixCache } from "../../engine/cache/prefix-cache.ts";
import { embeddedModel, loadModel } from "../../engine/load-model.ts";
import type { Model } from "../../engine/model.ts";
import { digestOfModel } from "../../engine/model-digest.ts";
import { withoutUndefined } from "../../engine/without-undefined.ts";
import type { HostedEngine, StartEngine } from "./engine-messages.ts";

const optionsSchema = z.strictObject({
  model: z.string().default(embeddedModel),
  /** Name that clients see. Default: the last part of the model's path. */
  servedName: z.string().min(1).optional(),
  device: z.string().optional(),
  threads: z.int().positive().optional(),
  activations: z.enum(["int8", "float32"]).optional(),
  instructions: z.string().optional(),
  context: z.int().positive().optional(),
  drafting: z.enum(["off", "ngram"]).optional(),
  maxRunning: z.int().positive().optional(),
  /** Bytes of caches in memory: half for running requests, half for what is remembered. Default: a quarter of what is free. */
  cacheMemoryBytes: z.int().positive().optional(),
  cacheDirectory: z.string().optional(),
  /** 0: nothing is kept on disk. */
  cacheDiskBytes: z
    .int()
    .min(0)
    .default(8 * 2 ** 30),
});

export type ModelEngineOptions = z.input<typeof optionsSchema>;

export const startEngine: StartEngine = async (input, onProgress) => {
  const options = optionsSchema.parse(input);
  const started = performance.now();
  const model = await loadModel(options.model, {
    ...withoutUndefined({
      device: options.device,
      threads: options.threads,
      activations: options.activations,
      instructions: options.instructions,
      contextLength: options.context,
    }),
    onProgress: (done, total) => onProgress(done / total),
  });
  try {
    const memoryBytes = options.cacheMemoryBytes ?? Math.max(2 ** 26, process.availableMemory() / 4);
    const cache = await PrefixCache.open({
      runner: model.runner,
      modelDigest: await digestOfModel(options.model),
      memoryBudgetBytes: memoryBytes / 2,
      store: storeOf(options),
    });
    if (cache.counters.diskState !== "on" && options.cacheDiskBytes > 0) {
      process.stderr.write(`warning: The prefix cache is ${cache.counters.diskState} on disk: ${cache.diskReason}\n`);
    }
    const loadSeconds = (performance.now() - started) / 1000;
    const scheduling = { cacheBytes: memoryBytes / 2, ...withoutUndefined({ maxRunning: options.maxRunning }) };
    const settings = { scheduling, loadSeconds, ...withoutUndefined({ drafting: options.drafting }) };
    return new ModelEngine(model, new BatchEngine(model, cache, settings), servedName(options));
  } catch (error) {
    model[Symbol.dispose]();
    throw error;
  }
};

/** Where what was computed is kept, unless told otherwise: one folder for all models, which the records tell apart. */
export function defaultCacheDirectory(): string {
  return join(process.env.XDG_CACHE_HOME ?? join(homedir(), ".cache"), "freehold", "kv");
}

function storeOf({ cacheDirectory, cacheDiskBytes }: z.output<typeof optionsSchema>) {
  if (cacheDiskBytes === 0) return "off";
  return { directory: cacheDirectory ?? defaultCacheDirectory(), budgetBytes: cacheDiskBytes };
}

function servedName({ model, servedName: name }: z.output<typeof optionsSchema>): string {
  return name ?? basename(resolve(model)).replace(/\.gguf$/, "");
}

class ModelEngine implements HostedEngine {
  readonly info: HostedEngine["info"];
  readonly #model: Model;
  readonly #engine: BatchEngine;
  readonly #idle: NodeJS.Timeout;

  constructor(model: Model, engine: BatchEngine, name: string) {
    this.#model = model;
    this.#engine = engine;
    this.info = { ...engine.info, name };
    this.#idle = setInterval(() => engine.tick(), 500).unref();
  }

  get status(): HostedEngine["status"] {
    return this.#engine.status;
  }

  submit(...request: Parameters<HostedEngine["submit"]>): void {
    this.#engine.submit(...request);
  }

  cancel(id: string): void {
    this.#engine.cancel(id);
  }

  async close(): Promise<void> {
    clearInterval(this.#idle);
    await this.#engine.close();
    this.#model[Symbol.dispose]();
  }
}
