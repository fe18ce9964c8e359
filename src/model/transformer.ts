/**
 * The whole pass of a DeepSeek-V4 model: token ids to logits
 *   tokenIds [tokens] -> streams [tokens, hcMult, hiddenSize] -> logits [outputs, vocabSize]
 * `outputRows` names the tokens of the step whose logits are wanted; the head is not computed for the others.
 */
import { Graph, type Tensor } from "../tensor/graph.ts";
import { gatherRows } from "../tensor/ops/gather-rows.ts";
import { linear } from "../tensor/ops/linear.ts";
import { repeatStreams } from "../tensor/ops/repeat-streams.ts";
import { rmsNorm } from "../tensor/ops/rms-norm.ts";
import { block } from "./block.ts";
import type { ModelConfig } from "./config.ts";
import { collapseHead } from "./hyper-connections.ts";
import { stepInputs } from "./step.ts";

export interface TransformerOptions {
  /** Keep the streams that leave the last layer as the output "streams": the MTP module reads them. */
  readonly keepStreams?: boolean;
}

/** Records the graph: inputs as in step.ts and `outputRows` [outputs], output "logits" [outputs, vocabSize]. */
export function recordTransformer(config: ModelConfig, options: TransformerOptions = {}): Graph {
  const g = new Graph();
  const step = stepInputs(g);
  let streams = g.call(repeatStreams, [embedding(g, config, step.tokenIds)], { count: config.hcMult });
  config.compressRatios.forEach((ratio, l) => {
    const layer = { name: `layers.${l}`, ratio, hashRouted: config.hashRouted[l]! };
    streams = g.label(`layers.${l}.streams`, block(g, config, layer, streams, step));
  });
  if (options.keepStreams) g.output("streams", streams);

  const chosen = g.call(gatherRows, [streams, g.input("outputRows", "i32", ["outputs"])], {});
  const collapsed = g.label("head.collapsed", collapseHead(g, config, "hc_head", chosen));
  g.output("logits", outputLogits(g, config, "norm.weight", collapsed, "head.normed"));
  return g;
}

/** Token ids [tokens] -> [tokens, hiddenSize]. */
export function embedding(g: Graph, { vocabSize, hiddenSize }: ModelConfig, tokenIds: Tensor): Tensor {
  return g.label("embeddings", g.call(gatherRows, [g.weight("embed.weight", [vocabSize, hiddenSize]), tokenIds], {}));
}

/** Final norm and output matrix: [outputs, hiddenSize] -> [outputs, vocabSize]. */
export function outputLogits(g: Graph, config: ModelConfig, norm: string, x: Tensor, label: string): Tensor {
  const { hiddenSize, vocabSize, rmsNormEps: eps } = config;
  const normed = g.label(label, g.call(rmsNorm, [x, g.weight(norm, [hiddenSize])], { eps }));
  return g.call(linear, [normed, g.weight("head.weight", [vocabSize, hiddenSize])], {});
}
