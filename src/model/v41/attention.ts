/**
 * Attention of one layer of V4.1 (CSA2): a query sees the last `slidingWindow` keys of its own layer, and the compressed entries
 * that were selected for it. Entries, index keys, selection and candidate pool belong to source layers; the layers above use
 * them as they are.
 *   x [tokens, hiddenSize], normed -> [tokens, hiddenSize]
 * One vector is key and value of all heads, as in V4; query heads have no norm. Layers with entries use the compress frequencies
 * for everything.
 */
import { type Graph, pageRowsOf, type Tensor } from "../../tensor/graph.ts";
import { linear } from "../../tensor/ops/linear.ts";
import { rmsNorm } from "../../tensor/ops/rms-norm.ts";
import { rope } from "../../tensor/ops/rope.ts";
import { sparseAttention } from "../../tensor/ops/sparse-attention.ts";
import { writeRows } from "../../tensor/ops/write-rows.ts";
import { groupedOutput } from "../attention/grouped-output.ts";
import type { V41Config } from "../config.ts";
import { ropeFrequencies } from "../rope.ts";
import { roundedCache, roundedInput } from "../rounding.ts";
import type { Step } from "../step.ts";
import { type CompressedEntries, compressedEntries } from "./compressed-entries.ts";
import { selectEntries } from "./indexer.ts";
import type { V41Layer } from "./schedule.ts";

/** What a layer hands to those above. */
export interface SharedSelection {
  readonly entries: CompressedEntries;
  /** [tokens, indexTopK] i32, entries that each query sees. */
  readonly selected: Tensor;
  /** [tokens, topBlocks] i32, blocks of entries that later selections are made from. */
  readonly candidates: Tensor | undefined;
}

export interface Attended {
  readonly output: Tensor;
  readonly shared: SharedSelection | undefined;
}

export function sharedAttention(
  g: Graph,
  config: V41Config,
  layer: V41Layer,
  x: Tensor,
  step: Step,
  below: SharedSelection | undefined,
): Attended {
  const name = `${layer.name}.attn`;
  const frequencies = ropeFrequencies(layer.ratio === 0 ? config.rope : config.compressRope, config.ropeHeadDim);
  const input = roundedInput(g, config.rounding, x);
  const { latent, queries } = attentionQueries(g, config, name, input, step.positions, frequencies);

  const cache = g.cache(`${name}.window`, config.headDim, { tokensPerRow: 1, reach: config.slidingWindow - 1 });
  const rows = keyValues(g, config, name, input, step.positions, frequencies);
  const window = g.call(writeRows, [cache, g.label(`${name}.kv`, rows), g.slots(cache)], {});

  const shared = selectionOf(g, config, layer, x, latent, step, frequencies, below);
  const sinks = g.weight(`${name}.attn_sink`, [config.numHeads]);
  const inputs = [queries, sinks, step.positions, step.sequences, window, g.pageTable(window)];
  // A layer without entries leaves what it was handed to the layers above.
  const seen = layer.ratio === 0 ? undefined : shared;
  if (seen !== undefined) inputs.push(seen.entries.rows, g.pageTable(seen.entries.rows), seen.selected);
  const attended = g.call(sparseAttention, inputs, {
    windowSize: config.slidingWindow,
    ratio: layer.ratio,
    windowPageRows: pageRowsOf(window),
    entryPageRows: seen === undefined ? 1 : pageRowsOf(seen.entries.rows),
  });
  return { output: attentionOutput(g, config, name, attended, step.positions, frequencies), shared };
}

/** Entries and selection of this layer: its own, or those from below. */
function selectionOf(
  g: Graph,
  config: V41Config,
  layer: V41Layer,
  x: Tensor,
  latent: Tensor,
  step: Step,
  frequencies: readonly number[],
  below: SharedSelection | undefined,
): SharedSelection | undefined {
  if (!layer.selects) return below;
  // The first layer that selects owns entries: the schedule was checked when the config was read.
  const entries = layer.ownsEntries ? compressedEntries(g, config, layer, x, step, frequencies) : below!.entries;
  return { entries, ...selectEntries(g, config, layer, x, latent, entries, step, frequencies, below?.candidates) };
}

/** x [tokens, hiddenSize] -> latent [tokens, queryLoraRank], rotated queries [tokens, numHeads, headDim]. */
export function attentionQueries(
  g: Graph,
  config: V41Config,
  name: string,
  x: Tensor,
  positions: Tensor,
  frequencies: readonly number[],
): { latent: Tensor; queries: Tensor } {
  const { queryLoraRank, hiddenSize, numHeads, headDim, rmsNormEps: eps, rounding } = config;
  const down = g.call(linear, [x, g.weight(`${name}.wq_a.weight`, [queryLoraRank, hiddenSize])], {});
  const normed = g.call(rmsNorm, [down, g.weight(`${name}.q_norm.weight`, [queryLoraRank])], { eps });
  const latent = roundedInput(g, rounding, g.label(`${name}.query_latent`, normed));
  const up = g.call(linear, [latent, g.weight(`${name}.wq_b.weight`, [numHeads * headDim, queryLoraRank])], {});
  const heads = g.reshape(up, [x.shape[0]!, numHeads, headDim]);
  return { latent, queries: g.call(rope, [heads, positions], { frequencies, inverse: false }) };
}

/** The key = value of every row of x [n, hiddenSize]: normed, rotated, rounded as caches keep it [n, headDim]. */
export function keyValues(
  g: Graph,
  { headDim, hiddenSize, rmsNormEps: eps, rounding }: V41Config,
  name: string,
  x: Tensor,
  positions: Tensor,
  frequencies: readonly number[],
): Tensor {
  const kv = g.call(linear, [x, g.weight(`${name}.wkv.weight`, [headDim, hiddenSize])], {});
  const normed = g.call(rmsNorm, [kv, g.weight(`${name}.kv_norm.weight`, [headDim])], { eps });
  const rotated = g.call(rope, [normed, positions], { frequencies, inverse: false });
  return roundedCache(g, rounding, g.label(`${name}.kv.exact`, rotated), "fp8");
}

/** Turned back, being made of rotated values, and projected: [tokens, numHeads, headDim] -> [tokens, hiddenSize]. */
export function attentionOutput(
  g: Graph,
  config: V41Config,
  name: string,
  attended: Tensor,
  positions: Tensor,
  frequencies: readonly number[],
): Tensor {
  const turnedBack = g.call(rope, [attended, positions], { frequencies, inverse: true });
  return groupedOutput(g, config, name, g.label(`${name}.turned_back`, turnedBack), config.rounding);
}
