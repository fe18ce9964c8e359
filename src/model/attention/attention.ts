/**
 * Attention of one layer of V4 (DeepSeek-V4 report, compressed sparse attention). One vector a token is key AND value, the same
 * for all heads; a query sees the last `slidingWindow` of them and, by the layer's compress ratio, nothing else (0), the
 * entries of 4 tokens that the lightning indexer selects (4), or all entries of 128 tokens (128).
 *   x [tokens, hiddenSize], normed -> [tokens, hiddenSize]
 * Keys are rotated, and so are the values, being the same: the output is rotated back at the query's position. Layers that
 * compress use the compress frequencies for everything, their window included.
 */
import type { Graph, Tensor } from "../../tensor/graph.ts";
import { pageRowsOf } from "../../tensor/graph.ts";
import { linear } from "../../tensor/ops/linear.ts";
import { rmsNorm } from "../../tensor/ops/rms-norm.ts";
import { rope } from "../../tensor/ops/rope.ts";
import { sparseAttention } from "../../tensor/ops/sparse-attention.ts";
import { writeRows } from "../../tensor/ops/write-rows.ts";
import type { CompressRatio, V4Config } from "../config.ts";
import { ropeFrequencies } from "../rope.ts";
import type { Step } from "../step.ts";
import { compressor } from "./compressor.ts";
import { groupedOutput } from "./grouped-output.ts";
import { lightningIndexer } from "./lightning-indexer.ts";

export function attention(
  g: Graph,
  config: V4Config,
  name: string,
  ratio: CompressRatio,
  x: Tensor,
  step: Step,
): Tensor {
  const { numHeads, headDim, rmsNormEps: eps } = config;
  const frequencies = ropeFrequencies(ratio === 0 ? config.rope : config.compressRope, config.ropeHeadDim);
  const latent = queryLatent(g, config, name, x);

  const queries = g.call(
    linear,
    [latent, g.weight(`${name}.wq_b.weight`, [numHeads * headDim, config.queryLoraRank])],
    {},
  );
  const heads = g.call(rmsNorm, [g.reshape(queries, [x.shape[0]!, numHeads, headDim])], { eps }); // no weight
  const rotated = g.label(`${name}.queries`, g.call(rope, [heads, step.positions], { frequencies, inverse: false }));

  const window = slidingWindow(g, config, name, x, step, frequencies);
  const inputs = [
    rotated,
    g.weight(`${name}.attn_sink`, [numHeads]),
    step.positions,
    step.sequences,
    window,
    g.pageTable(window),
  ];
  if (ratio !== 0) {
    const entries = compressor(g, config, `${name}.compressor`, ratio, headDim, x, frequencies);
    inputs.push(entries, g.pageTable(entries));
    if (ratio === 4) inputs.push(lightningIndexer(g, config, `${name}.indexer`, x, latent, step, frequencies));
  }
  const [attended, mass] = g.apply(sparseAttention, inputs, {
    windowSize: config.slidingWindow,
    ratio,
    windowPageRows: pageRowsOf(window),
    entryPageRows: ratio === 0 ? 1 : pageRowsOf(inputs[6]!),
  });
  g.label(`${name}.attended`, attended!);
  g.label(`${name}.mass`, mass!);
  const turnedBack = g.call(rope, [attended!, step.positions], { frequencies, inverse: true });
  return groupedOutput(g, config, name, g.label(`${name}.turned_back`, turnedBack));
}

/** The low-rank vector [tokens, queryLoraRank] from which the queries of the heads and of the indexer are made. */
function queryLatent(g: Graph, config: V4Config, name: string, x: Tensor): Tensor {
  const down = g.call(linear, [x, g.weight(`${name}.wq_a.weight`, [config.queryLoraRank, config.hiddenSize])], {});
  const norm = g.weight(`${name}.q_norm.weight`, [config.queryLoraRank]);
  return g.label(`${name}.query_latent`, g.call(rmsNorm, [down, norm], { eps: config.rmsNormEps }));
}

/** The key = value of every token, normed and rotated, in the cache of the last `slidingWindow` tokens. */
function slidingWindow(
  g: Graph,
  { headDim, hiddenSize, slidingWindow: size, rmsNormEps: eps }: V4Config,
  name: string,
  x: Tensor,
  { positions, isLate }: Step,
  frequencies: readonly number[],
): Tensor {
  const layout = isLate ? { tokensPerRow: 1, reach: size, isLate } : { tokensPerRow: 1, reach: size - 1 };
  const cache = g.cache(`${name}.window`, headDim, layout);
  const kv = g.call(linear, [x, g.weight(`${name}.wkv.weight`, [headDim, hiddenSize])], {});
  const normed = g.call(rmsNorm, [kv, g.weight(`${name}.kv_norm.weight`, [headDim])], { eps });
  const rotated = g.call(rope, [normed, positions], { frequencies, inverse: false });
  return g.call(writeRows, [cache, g.label(`${name}.kv`, rotated), g.slots(cache)], {});
}
