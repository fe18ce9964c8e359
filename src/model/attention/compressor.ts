/**
 * The compressor: one entry for every `ratio` tokens, made as soon as its last token is there (DeepSeek-V4 report)
 *   x [tokens, hiddenSize] -> cache of entries [rows, width], normed, then rotated by the position of their first token
 * Ratio 4 overlaps: an entry is made of its own 4 tokens and of the 4 before. Values and gates of the tokens wait in caches
 * as far back as an entry reaches, so that a group may begin in one step and end in another.
 */
import { type Graph, pageRowsOf, type Tensor } from "../../tensor/graph.ts";
import { compressEntries } from "../../tensor/ops/compress-entries.ts";
import { linear } from "../../tensor/ops/linear.ts";
import { rmsNorm } from "../../tensor/ops/rms-norm.ts";
import { rope } from "../../tensor/ops/rope.ts";
import { writeRows } from "../../tensor/ops/write-rows.ts";
import type { CompressRatio, V4Config } from "../config.ts";
import { closedGroups } from "../step.ts";

export function compressor(
  g: Graph,
  config: V4Config,
  name: string,
  ratio: Exclude<CompressRatio, 0>,
  width: number,
  x: Tensor,
  frequencies: readonly number[],
): Tensor {
  const overlap = ratio === 4;
  const channels = overlap ? 2 * width : width;
  const waiting = (role: string, weight: string) => {
    const cache = g.cache(`${name}.${role}`, channels, { tokensPerRow: 1, reach: (overlap ? 2 : 1) * ratio - 1 });
    const rows = g.call(linear, [x, g.weight(`${name}.${weight}.weight`, [channels, config.hiddenSize])], {});
    return g.call(writeRows, [cache, rows, g.slots(cache)], {});
  };
  const values = waiting("values", "wkv");
  const gates = waiting("gates", "wgate");

  const closed = closedGroups(g, ratio);
  const positionBias = g.weight(`${name}.ape`, [ratio, channels]);
  const mixed = g.call(
    compressEntries,
    [values, gates, closed.sequences, closed.entries, g.pageTable(values), positionBias],
    { ratio, overlap, pageRows: pageRowsOf(values) },
  );
  const normed = g.call(rmsNorm, [mixed, g.weight(`${name}.norm.weight`, [width])], { eps: config.rmsNormEps });
  const rotated = g.call(rope, [normed, closed.positions], { frequencies, inverse: false });
  g.label(`${name}.closed`, rotated);
  const entries = g.cache(`${name}.entries`, width, { tokensPerRow: ratio, reach: Number.POSITIVE_INFINITY });
  return g.call(writeRows, [entries, rotated, g.slots(entries)], {});
}
