/**
 * The lightning indexer of a ratio-4 layer: which compressed entries a query attends to (DeepSeek-V3.2 report)
 *   x [tokens, hiddenSize], latent [tokens, queryLoraRank] -> selected [tokens, indexTopK] (i32, rising, -1 = none)
 * It has small heads and a compressor of its own. Scores only choose; they weigh nothing afterwards.
 */
import { type Graph, pageRowsOf, type Tensor } from "../../tensor/graph.ts";
import { indexerScores } from "../../tensor/ops/indexer-scores.ts";
import { linear } from "../../tensor/ops/linear.ts";
import { rope } from "../../tensor/ops/rope.ts";
import { scale } from "../../tensor/ops/scale.ts";
import { topK } from "../../tensor/ops/top-k.ts";
import type { V4Config } from "../config.ts";
import type { Step } from "../step.ts";
import { compressor } from "./compressor.ts";

export function lightningIndexer(
  g: Graph,
  config: V4Config,
  name: string,
  x: Tensor,
  latent: Tensor,
  step: Step,
  frequencies: readonly number[],
): Tensor {
  const { indexNumHeads, indexHeadDim, queryLoraRank, hiddenSize, indexTopK } = config;
  const keys = compressor(g, config, `${name}.compressor`, 4, indexHeadDim, x, frequencies);

  const up = g.call(
    linear,
    [latent, g.weight(`${name}.wq_b.weight`, [indexNumHeads * indexHeadDim, queryLoraRank])],
    {},
  );
  const heads = g.reshape(up, ["tokens", indexNumHeads, indexHeadDim]);
  const queries = g.call(rope, [heads, step.positions], { frequencies, inverse: false });

  const signed = g.call(linear, [x, g.weight(`${name}.weights_proj.weight`, [indexNumHeads, hiddenSize])], {});
  const weights = g.call(scale, [signed], { factor: (indexNumHeads * indexHeadDim) ** -0.5 });

  const scores = g.call(indexerScores, [queries, weights, keys, g.pageTable(keys), step.sequences, step.positions], {
    ratio: 4,
    pageRows: pageRowsOf(keys),
  });
  g.label(`${name}.queries`, queries);
  g.label(`${name}.weights`, weights);
  g.label(`${name}.scores`, scores);
  return g.label(`${name}.selected`, g.call(topK, [scores], { k: indexTopK }));
}
