/**
 * The router of V4.1: the experts of the greatest score + correction bias, weighted by their scores alone
 *   x [tokens, hiddenSize] -> chosen [tokens, numExpertsPerToken] (i32), weights of the same shape
 * Tokens of an image have a bias of their own. Scores come from logits divided by a temperature.
 */
import type { Graph, Tensor } from "../../tensor/graph.ts";
import { add } from "../../tensor/ops/add.ts";
import { addBiasOfToken } from "../../tensor/ops/add-bias-of-token.ts";
import { linear } from "../../tensor/ops/linear.ts";
import { routerScores } from "../../tensor/ops/router-scores.ts";
import { routingWeights } from "../../tensor/ops/routing-weights.ts";
import { scale } from "../../tensor/ops/scale.ts";
import { topK } from "../../tensor/ops/top-k.ts";
import type { V41Config } from "../config.ts";
import type { Routing } from "../moe/router.ts";

/** Without `imageTokens` ([tokens] ids) every token counts as text. */
export function routerOfV41(
  g: Graph,
  config: V41Config,
  name: string,
  x: Tensor,
  imageTokens: Tensor | undefined,
): Routing {
  const { numExperts, numExpertsPerToken: k, hiddenSize, gateTemperature, imageTokenId } = config;
  const raw = g.call(linear, [x, g.weight(`${name}.weight`, [numExperts, hiddenSize])], {});
  const logits = gateTemperature === 1 ? raw : g.call(scale, [raw], { factor: 1 / gateTemperature });
  const scores = g.label(`${name}.scores`, g.call(routerScores, [logits], {}));
  const bias = g.weight(`${name}.bias`, [numExperts]);
  const ranked =
    imageTokenId === undefined || imageTokens === undefined
      ? g.call(add, [scores, bias], {})
      : g.call(addBiasOfToken, [scores, bias, g.weight(`${name}.bias_vl`, [numExperts]), imageTokens], {
          imageTokenId,
        });
  const chosen = g.call(topK, [ranked], { k });
  const weights = g.call(routingWeights, [scores, chosen], {
    normalize: config.normalizeTopK && k > 1,
    factor: config.routedScalingFactor,
  });
  return { chosen: g.label(`${name}.chosen`, chosen), weights: g.label(`${name}.weights`, weights) };
}
