/** What a model needs in memory, from its config alone: weights as a device of this version holds them, caches at a context. */
import { isMatrixFormat } from "../device/cpu/matrix-formats.ts";
import type { Device } from "../device/device.ts";
import type { ModelConfig } from "../model/config.ts";
import { modelParameters, type Parameter } from "../model/parameters.ts";
import { recordTransformer } from "../model/transformer.ts";
import { rowsPerPage } from "../tensor/paging.ts";
import { countElements } from "../tensor/shape.ts";
import type { Checkpoint } from "./checkpoint.ts";

const float32Bytes = 4;

/** Parameters in all, and those that take part in one token (the chosen experts of each layer). */
export function parameterCounts(
  parameters: readonly Parameter[],
  config: ModelConfig,
): { total: number; active: number } {
  const size = ({ shape }: Parameter) => countElements(shape);
  const isExpert = ({ shape }: Parameter) => shape.length === 3;
  // The correction bias steers the balance of experts; it is no learnt parameter and model cards do not count it.
  const numbers = parameters.filter(({ name, kind }) => kind !== "integers" && !name.endsWith("gate.bias"));
  const total = numbers.reduce((sum, parameter) => sum + size(parameter), 0);
  const share = config.numExpertsPerToken / config.numExperts;
  const active = numbers.reduce((sum, parameter) => sum + size(parameter) * (isExpert(parameter) ? share : 1), 0);
  return { total, active: Math.round(active) };
}

/** Parameters of a part that uses all of them for everything. */
export function countParameters(parameters: readonly Parameter[]): number {
  return parameters.reduce((sum, { shape }) => sum + countElements(shape), 0);
}

/** Bytes of one sequence of `context` tokens beside `weightBytes` of weights; caches are float32. */
export function memoryNeed(config: ModelConfig, weightBytes: number, context: number) {
  let rowsOfCaches = 0;
  for (const { storage } of recordTransformer(config).caches.values()) {
    const { width, layout } = storage;
    const rows = Math.min(Math.ceil(context / layout.tokensPerRow), layout.reach);
    rowsOfCaches += Math.ceil(rows / rowsPerPage(layout)) * rowsPerPage(layout) * width;
  }
  const cacheBytes = rowsOfCaches * float32Bytes;
  return { context, weights_bytes: weightBytes, cache_bytes: cacheBytes, total_bytes: weightBytes + cacheBytes };
}

/** The tables of the n-gram memory: what they hold, what they take on disk, and in memory with a cache of `cacheBytes`. */
export function engramNeed(checkpoint: Checkpoint, cacheBytes: number) {
  const { tables } = checkpoint;
  if (tables.length === 0) return undefined;
  let bytes = 0;
  for (const { name } of tables)
    for (const { data, scales } of checkpoint.stored(name)?.parts ?? []) bytes += data.length + (scales?.length ?? 0);
  return {
    tables: tables.length,
    rows: tables.reduce((sum, { shape }) => sum + shape[0]!, 0),
    parameters: tables.reduce((sum, { shape }) => sum + countElements(shape), 0),
    bytes,
    memory_bytes: Math.min(bytes, cacheBytes),
  };
}

/** Bytes of the weights as the kernels hold them: matrices in the format of their file where they read it, else float32. */
export function weightBytes(checkpoint: Pick<Checkpoint, "parameters" | "stored">): number {
  let total = 0;
  for (const { name, shape, isFactor } of checkpoint.parameters) {
    const stored = isFactor ? checkpoint.stored(name) : undefined;
    if (stored === undefined || !isMatrixFormat(stored.format)) total += float32Bytes * countElements(shape);
    else for (const { data, scales } of stored.parts) total += data.length + (scales?.length ?? 0);
  }
  return total;
}

/** Bytes of weights that one token reads: everything but the embedding, of which it reads a row, and the experts not chosen. */
export function weightBytesPerToken(config: ModelConfig, device: Device): number {
  const share = config.numExpertsPerToken / config.numExperts;
  const read = modelParameters(config).filter(({ name, kind }) => name !== "embed.weight" && kind !== "integers");
  return Math.round(
    read.reduce((sum, { name, shape }) => sum + device.bytesOfWeight(name) * (shape.length === 3 ? share : 1), 0),
  );
}
