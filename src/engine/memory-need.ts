/** What a model needs in memory, from its config alone: weights as a device of this version holds them, caches at a context. */
import type { ModelConfig } from "../model/config.ts";
import { modelParameters, type Parameter } from "../model/parameters.ts";
import { recordTransformer } from "../model/transformer.ts";
import { rowsPerPage } from "../tensor/paging.ts";
import { countElements } from "../tensor/shape.ts";

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

/** Bytes of one sequence of `context` tokens on the float32 devices. */
export function memoryNeed(config: ModelConfig, parameters: number, context: number) {
  let rowsOfCaches = 0;
  for (const { storage } of recordTransformer(config).caches.values()) {
    const { width, layout } = storage;
    const rows = Math.min(Math.ceil(context / layout.tokensPerRow), layout.reach);
    rowsOfCaches += Math.ceil(rows / rowsPerPage(layout)) * rowsPerPage(layout) * width;
  }
  return {
    context,
    weights_bytes: parameters * float32Bytes,
    cache_bytes: rowsOfCaches * float32Bytes,
    total_bytes: (parameters + rowsOfCaches) * float32Bytes,
  };
}

/** Bytes of weights that one token reads: everything but the embedding, of which it reads a row, and the experts not chosen. */
export function weightBytesPerToken(config: ModelConfig): number {
  const read = modelParameters(config).filter(({ name }) => name !== "embed.weight");
  return parameterCounts(read, config).active * float32Bytes;
}
