/**
 * The two matrices with a row for each token: the embedding at the beginning, and the output matrix at the end. What drafts uses
 * those of the main model.
 */
import type { Graph, Tensor } from "../tensor/graph.ts";
import { gatherRows } from "../tensor/ops/gather-rows.ts";
import { linear } from "../tensor/ops/linear.ts";
import { rmsNorm } from "../tensor/ops/rms-norm.ts";
import type { ModelConfig } from "./config.ts";

/** Token ids [tokens] -> [tokens, hiddenSize]. */
export function embedding(g: Graph, { vocabSize, hiddenSize }: ModelConfig, tokenIds: Tensor): Tensor {
  return g.call(gatherRows, [g.weight("embed.weight", [vocabSize, hiddenSize]), tokenIds], {});
}

/** Final norm and output matrix: [outputs, hiddenSize] -> [outputs, vocabSize]. */
export function outputLogits(g: Graph, config: ModelConfig, norm: string, x: Tensor, label: string): Tensor {
  const { hiddenSize, vocabSize, rmsNormEps: eps } = config;
  const normed = g.label(label, g.call(rmsNorm, [x, g.weight(norm, [hiddenSize])], { eps }));
  return g.call(linear, [normed, g.weight("head.weight", [vocabSize, hiddenSize])], {});
}
