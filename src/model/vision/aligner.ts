/**
 * The aligner: square cells of patches become vectors of the text model's width
 *   x [tokens, hiddenSize], members [cells, downsampleRatio^2] -> [cells, textHiddenSize]
 * A cell is joined channel by channel; the patches that it lacks at the edges of the grid count as zeros.
 */
import type { Graph, Tensor } from "../../tensor/graph.ts";
import { gatherCells } from "../../tensor/ops/gather-cells.ts";
import { gelu } from "../../tensor/ops/gelu.ts";
import type { VisionConfig } from "./config.ts";
import { biasedLinear } from "./tower.ts";

export function aligner(g: Graph, config: VisionConfig, x: Tensor, members: Tensor): Tensor {
  const { hiddenSize, downsampleRatio, textHiddenSize } = config;
  const cells = g.call(gatherCells, [x, members], {});
  const hidden = biasedLinear(g, "aligner.w1", cells, [textHiddenSize, hiddenSize * downsampleRatio ** 2]);
  return biasedLinear(g, "aligner.w2", g.call(gelu, [hidden], {}), [textHiddenSize, textHiddenSize]);
}
