/**
 * One layer of V4.1: the n-gram memory where there is one, attention, then a mixture of experts, the last two each inside its
 * hyper-connection and behind its own norm.
 */
import type { Graph, Tensor } from "../../tensor/graph.ts";
import { rmsNorm } from "../../tensor/ops/rms-norm.ts";
import type { V41Config } from "../config.ts";
import { mixtureOfExperts } from "../moe/mixture-of-experts.ts";
import { type Carried, carriedConnection } from "./hyper-connections.ts";
import { routerOfV41 } from "./router.ts";

/**
 * The two sublayers. `attention` is given the normed vector; `imageTokens` are the ids of the tokens, by which those of images
 * are routed apart.
 */
export function v41Block(
  g: Graph,
  config: V41Config,
  name: string,
  before: Carried,
  attention: (x: Tensor) => Tensor,
  imageTokens: Tensor | undefined,
): Carried {
  const norm = (x: Tensor, weight: string) =>
    g.call(rmsNorm, [x, g.weight(weight, [config.hiddenSize])], { eps: config.rmsNormEps });

  const attended = carriedConnection(g, config, `${name}.hc_attn`, before, (x) => {
    const normed = g.label(`${name}.attn.input`, norm(x, `${name}.attn_norm.weight`));
    return g.label(`${name}.attn.output`, attention(normed));
  });
  g.label(`${name}.streams_mid`, attended.streams);
  return carriedConnection(g, config, `${name}.hc_ffn`, attended, (x) => {
    const normed = g.label(`${name}.ffn.input`, norm(x, `${name}.ffn_norm.weight`));
    const routing = routerOfV41(g, config, `${name}.ffn.gate`, normed, imageTokens);
    const output = mixtureOfExperts(g, config, `${name}.ffn`, normed, routing, config.rounding);
    return g.label(`${name}.ffn.output`, output);
  });
}
