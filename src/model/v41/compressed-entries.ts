/**
 * Compressed entries and index keys of a source layer (DeepSeek V4.1, CSA2): one of each for every `ratio` tokens, made as soon
 * as the last token of the group is there
 *   x [tokens, hiddenSize] -> cache of entries [rows, headDim] and of index keys [rows, indexHeadDim]
 * Two tokens are pooled channel by channel, with weights from gates of their own; a group of one token is that token. Values and
 * gates of an open group wait in caches. Entries and keys come from one latent and are rotated by the group's FIRST token.
 */
import { type Graph, pageRowsOf, type Tensor } from "../../tensor/graph.ts";
import { compressEntries } from "../../tensor/ops/compress-entries.ts";
import { linear } from "../../tensor/ops/linear.ts";
import { rmsNorm } from "../../tensor/ops/rms-norm.ts";
import { rope } from "../../tensor/ops/rope.ts";
import type { BlockRounding } from "../../tensor/ops/round-blocks.ts";
import { writeRows } from "../../tensor/ops/write-rows.ts";
import type { V41Config } from "../config.ts";
import { roundedCache } from "../rounding.ts";
import { closedGroups, type Step } from "../step.ts";
import type { V41Layer } from "./schedule.ts";

export interface CompressedEntries {
  readonly rows: Tensor;
  readonly indexKeys: Tensor;
}

export function compressedEntries(
  g: Graph,
  config: V41Config,
  { name, ratio }: V41Layer,
  x: Tensor,
  step: Step,
  frequencies: readonly number[],
): CompressedEntries {
  const { headDim, indexHeadDim, rmsNormEps: eps, rounding } = config;
  const compressor = `${name}.attn.compressor`;
  const indexer = `${name}.attn.indexer`;
  const positions = ratio === 1 ? step.positions : closedGroups(g, ratio).positions;
  const mixed = ratio === 1 ? project(g, config, compressor, "wkv", x) : pooled(g, config, compressor, ratio, x);
  const latent = g.call(rmsNorm, [mixed, g.weight(`${compressor}.norm.weight`, [headDim])], { eps });
  g.label(`${compressor}.latent`, latent);
  const rotated = g.call(rope, [latent, positions], { frequencies, inverse: false });

  const key = g.call(linear, [latent, g.weight(`${indexer}.wk.weight`, [indexHeadDim, headDim])], {});
  const normed = g.call(rmsNorm, [key, g.weight(`${indexer}.k_norm.weight`, [indexHeadDim])], { eps });
  const turned = g.call(rope, [normed, positions], { frequencies, inverse: false });

  const layout = { tokensPerRow: ratio, reach: Number.POSITIVE_INFINITY };
  const keep = (cacheName: string, exact: Tensor, format: BlockRounding) => {
    const values = roundedCache(g, rounding, g.label(`${cacheName}.closed.exact`, exact), format);
    const cache = g.cache(cacheName, values.shape[1] as number, layout);
    return g.call(writeRows, [cache, g.label(`${cacheName}.closed`, values), g.slots(cache)], {});
  };
  return {
    rows: keep(`${compressor}.entries`, rotated, "nvfp4"),
    indexKeys: keep(`${indexer}.keys`, turned, "mxfp4"),
  };
}

/** The groups that close in this step: [closed, headDim]. */
function pooled(g: Graph, config: V41Config, name: string, ratio: number, x: Tensor): Tensor {
  const waiting = (role: string, weight: string) => {
    const cache = g.cache(`${name}.${role}`, config.headDim, { tokensPerRow: 1, reach: ratio - 1 });
    return g.call(writeRows, [cache, project(g, config, name, weight, x), g.slots(cache)], {});
  };
  const values = waiting("values", "wkv");
  const gates = waiting("gates", "wgate");
  const closed = closedGroups(g, ratio);
  const inputs = [values, gates, closed.sequences, closed.entries, g.pageTable(values)];
  return g.call(compressEntries, inputs, { ratio, overlap: false, pageRows: pageRowsOf(values) });
}

function project(g: Graph, { headDim, hiddenSize }: V41Config, name: string, weight: string, x: Tensor): Tensor {
  return g.call(linear, [x, g.weight(`${name}.${weight}.weight`, [headDim, hiddenSize])], {});
}
