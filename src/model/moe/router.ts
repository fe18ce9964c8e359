/**
 * Which experts a token goes to and how much each counts (DeepSeek-V4 report; auxiliary-loss-free balancing as in V3)
 *   x [tokens, hiddenSize] -> chosen [tokens, numExpertsPerToken] (i32), weights of the same shape
 * Hash layers read the experts from a table by token id; the others take the greatest score + correction bias. The weights
 * come from the scores without the bias in both.
 */
import type { Graph, Tensor } from "../../tensor/graph.ts";
import { add } from "../../tensor/ops/add.ts";
import { gatherRows } from "../../tensor/ops/gather-rows.ts";
import { linear } from "../../tensor/ops/linear.ts";
import { routerScores } from "../../tensor/ops/router-scores.ts";
import { routingWeights } from "../../tensor/ops/routing-weights.ts";
import { topK } from "../../tensor/ops/top-k.ts";
import type { V4Config } from "../config.ts";
import type { Step } from "../step.ts";

export interface Routing {
  readonly chosen: Tensor;
  readonly weights: Tensor;
}

export function router(g: Graph, config: V4Config, name: string, hashRouted: boolean, x: Tensor, step: Step): Routing {
  const { numExperts, numExpertsPerToken: k, hiddenSize, vocabSize } = config;
  const logits = g.call(linear, [x, g.weight(`${name}.weight`, [numExperts, hiddenSize])], {});
  g.label(`${name}.logits`, logits);
  const scores = g.label(`${name}.scores`, g.call(routerScores, [logits], {}));
  const chosen = hashRouted
    ? g.call(gatherRows, [g.weight(`${name}.tid2eid`, [vocabSize, k], "i32"), step.tokenIds], {})
    : g.call(topK, [g.call(add, [scores, g.weight(`${name}.bias`, [numExperts])], {})], { k });
  const weights = g.call(routingWeights, [scores, chosen], {
    normalize: config.normalizeTopK,
    factor: config.routedScalingFactor,
  });
  return { chosen: g.label(`${name}.chosen`, chosen), weights: g.label(`${name}.weights`, weights) };
}
