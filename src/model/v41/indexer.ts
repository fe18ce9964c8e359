/**
 * The indexer of a source layer of V4.1: which compressed entries a query sees, those of the greatest scores
 *   x [tokens, hiddenSize], latent [tokens, queryLoraRank] -> selected [tokens, indexTopK] (i32, rising, -1 = none)
 * The last source of entries also makes the candidate pool, blocks of entries out of which the indexers above it select; its own
 * selection is free. Scores only choose; they weigh nothing afterwards.
 */
import { type Graph, pageRowsOf, type Tensor } from "../../tensor/graph.ts";
import { candidateBlocks } from "../../tensor/ops/candidate-blocks.ts";
import { indexerScores } from "../../tensor/ops/indexer-scores.ts";
import { linear } from "../../tensor/ops/linear.ts";
import { rope } from "../../tensor/ops/rope.ts";
import { scale } from "../../tensor/ops/scale.ts";
import { topK } from "../../tensor/ops/top-k.ts";
import type { V41Config } from "../config.ts";
import { roundedCache } from "../rounding.ts";
import type { Step } from "../step.ts";
import type { CompressedEntries } from "./compressed-entries.ts";
import type { V41Layer } from "./schedule.ts";

export function selectEntries(
  g: Graph,
  config: V41Config,
  layer: V41Layer,
  x: Tensor,
  latent: Tensor,
  { indexKeys }: CompressedEntries,
  step: Step,
  frequencies: readonly number[],
  pool: Tensor | undefined,
): { selected: Tensor; candidates: Tensor | undefined } {
  const name = `${layer.name}.attn.indexer`;
  const queries = indexQueries(g, config, name, latent, step.positions, frequencies);
  const weights = headWeights(g, config, name, x);
  const { candidatePool: sizes, indexTopK: k } = config;
  const inputs = [queries, weights, indexKeys, g.pageTable(indexKeys), step.sequences, step.positions];
  const { ratio } = layer;
  const paged = { ratio, pageRows: pageRowsOf(indexKeys) };
  const isBound = sizes !== undefined && pool !== undefined && layer.pool === "uses";
  const scores = isBound
    ? g.call(indexerScores, [...inputs, pool], { ...paged, blockSize: sizes.blockSize })
    : g.call(indexerScores, inputs, paged);
  g.label(`${name}.scores`, scores);
  const candidates =
    sizes !== undefined && layer.pool === "makes"
      ? g.label(`${name}.candidates`, g.call(candidateBlocks, [scores, step.positions], { ratio, ...sizes }))
      : pool;
  return { selected: g.label(`${name}.selected`, g.call(topK, [scores], { k })), candidates };
}

function indexQueries(
  g: Graph,
  { indexNumHeads, indexHeadDim, queryLoraRank, rounding }: V41Config,
  name: string,
  latent: Tensor,
  positions: Tensor,
  frequencies: readonly number[],
): Tensor {
  const rows = indexNumHeads * indexHeadDim;
  const up = g.call(linear, [latent, g.weight(`${name}.wq_b.weight`, [rows, queryLoraRank])], {});
  const heads = g.reshape(up, ["tokens", indexNumHeads, indexHeadDim]);
  const rotated = g.call(rope, [heads, positions], { frequencies, inverse: false });
  g.label(`${name}.queries.exact`, rotated);
  return g.label(`${name}.queries`, roundedCache(g, rounding, rotated, "mxfp4"));
}

/** Signed weights of the heads, scaled for the products of indexHeadDim channels: [tokens, indexNumHeads]. */
function headWeights(
  g: Graph,
  { indexNumHeads, indexHeadDim, hiddenSize }: V41Config,
  name: string,
  x: Tensor,
): Tensor {
  const signed = g.call(linear, [x, g.weight(`${name}.weights_proj.weight`, [indexNumHeads, hiddenSize])], {});
  g.label(`${name}.weights`, signed);
  return g.call(scale, [signed], { factor: (indexNumHeads * indexHeadDim) ** -0.5 });
}
