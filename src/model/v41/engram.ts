/**
 * Engram, the n-gram memory of V4.1: rows of a large table, found by hashing the last tokens, become a key for each residual
 * stream and one value, which is added as far as stream and key agree
 *   streams [tokens, n, hiddenSize] -> streams
 * Tables are far larger than memory: a step brings the rows that it needs as an input (engram-hash.ts says which those are).
 */
import type { Graph, Tensor } from "../../tensor/graph.ts";
import { engramUpdate } from "../../tensor/ops/engram-update.ts";
import { linear } from "../../tensor/ops/linear.ts";
import type { EngramConfig, V41Config } from "../config.ts";
import { roundedInput } from "../rounding.ts";
import type { Step } from "../step.ts";

/** `name` is that of the layer. */
export function engram(
  g: Graph,
  config: V41Config,
  memory: EngramConfig,
  name: string,
  streams: Tensor,
  step: Step,
): Tensor {
  const { hcMult: n, hiddenSize, rmsNormEps: eps, rounding } = config;
  const width = engramColumns(memory) * memory.headDim;
  const rows = roundedInput(g, rounding, g.input(engramInput(name), "f32", ["tokens", width]));
  const projected = g.call(linear, [rows, g.weight(`${name}.engram.wkv.weight`, [(n + 1) * hiddenSize, width])], {});
  const weight = (role: string) => g.weight(`${name}.engram.${role}_weight`, [n, hiddenSize]);
  const updated = g.call(engramUpdate, [streams, projected, weight("q"), weight("k"), step.tokenIds], {
    eps,
    closedTokenId: config.imageTokenId ?? -1,
  });
  return g.label(`${name}.engram.out`, updated);
}

/** Table rows of a position. */
export function engramColumns({ maxNgram, numHeads }: EngramConfig): number {
  return (maxNgram - 1) * numHeads;
}

/** The input that holds the rows of a layer, dequantised: [tokens, columns * headDim]. */
export function engramInput(layerName: string): string {
  return `${layerName}.engram.rows`;
}
