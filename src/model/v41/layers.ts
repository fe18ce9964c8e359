/**
 * The layers of a V4.1 model, from the embedding to the vector that the head reads
 *   embedded [tokens, hiddenSize] -> [outputs, hiddenSize]
 */
import type { Graph, Tensor } from "../../tensor/graph.ts";
import { gatherRows } from "../../tensor/ops/gather-rows.ts";
import { repeatStreams } from "../../tensor/ops/repeat-streams.ts";
import type { V41Config } from "../config.ts";
import type { Step } from "../step.ts";
import { type SharedSelection, sharedAttention } from "./attention.ts";
import { v41Block } from "./block.ts";
import { recordDrafter } from "./drafter.ts";
import { engram } from "./engram.ts";
import { type Carried, collapse, meanOfStreams } from "./hyper-connections.ts";
import { v41Layers } from "./schedule.ts";

export function* recordV41Layers(
  g: Graph,
  config: V41Config,
  embedded: Tensor,
  step: Step,
  outputRows: Tensor,
  drafts: boolean,
): Generator<undefined, Tensor> {
  let carried: Carried = { streams: g.call(repeatStreams, [embedded], { count: config.hcMult }), pre: undefined };
  let shared: SharedSelection | undefined;
  const features: Tensor[] = [];
  for (const [l, layer] of v41Layers(config).entries()) {
    if (layer.engram !== undefined)
      carried = { ...carried, streams: engram(g, config, config.engram!, layer.name, carried.streams, step) };
    if (drafts && config.drafter?.featureLayers.includes(l))
      features.push(g.label(`features.${l}`, meanOfStreams(g, carried.streams)));
    const attention = (x: Tensor) => {
      const attended = sharedAttention(g, config, layer, x, step, shared);
      shared = attended.shared;
      return attended.output;
    };
    carried = v41Block(g, config, layer.name, carried, attention, step.tokenIds);
    g.label(`layers.${l}.streams`, carried.streams);
    yield;
  }
  if (drafts && config.drafter !== undefined) recordDrafter(g, config, config.drafter, features, step);
  const streams = g.call(gatherRows, [carried.streams, outputRows], {});
  const pre = carried.pre && g.call(gatherRows, [carried.pre, outputRows], {});
  return collapse(g, { streams, pre });
}
