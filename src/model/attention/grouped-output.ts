/**
 * Output projection in two steps: consecutive heads form groups, each is projected to a low rank by itself, and one matrix
 * joins them (DeepSeek-V4 report)
 *   attended [tokens, numHeads, headDim] -> [tokens, hiddenSize]
 */
import type { Graph, Tensor } from "../../tensor/graph.ts";
import { groupedLinear } from "../../tensor/ops/grouped-linear.ts";
import { linear } from "../../tensor/ops/linear.ts";
import type { ModelConfig, Rounding } from "../config.ts";
import { roundedInput } from "../rounding.ts";

export function groupedOutput(
  g: Graph,
  config: ModelConfig,
  name: string,
  attended: Tensor,
  rounding: Rounding = "none",
): Tensor {
  const { numHeads, headDim, outputGroups, outputLoraRank, hiddenSize } = config;
  const width = (numHeads / outputGroups) * headDim;
  const rank = outputGroups * outputLoraRank;
  const groups = g.call(
    groupedLinear,
    [g.reshape(attended, [attended.shape[0]!, outputGroups, width]), g.weight(`${name}.wo_a.weight`, [rank, width])],
    {},
  );
  g.label(`${name}.groups`, groups);
  return g.call(linear, [roundedInput(g, rounding, groups), g.weight(`${name}.wo_b.weight`, [hiddenSize, rank])], {});
}
