/**
 * One layer of V4: attention, then a mixture of experts, each inside its own hyper-connection and behind its own norm
 *   streams [tokens, hcMult, hiddenSize] -> streams [tokens, hcMult, hiddenSize]
 */
import type { Graph, Tensor } from "../tensor/graph.ts";
import { rmsNorm } from "../tensor/ops/rms-norm.ts";
import { attention } from "./attention/attention.ts";
import type { CompressRatio, V4Config } from "./config.ts";
import { hyperConnection } from "./hyper-connections.ts";
import { mixtureOfExperts } from "./moe/mixture-of-experts.ts";
import { router } from "./moe/router.ts";
import type { Step } from "./step.ts";

/** What distinguishes a layer from its neighbours; `name` is the beginning of its weights' names. */
export interface Layer {
  readonly name: string;
  readonly ratio: CompressRatio;
  readonly hashRouted: boolean;
}

export function block(g: Graph, config: V4Config, layer: Layer, streams: Tensor, step: Step): Tensor {
  const { name, ratio, hashRouted } = layer;
  const norm = (x: Tensor, weight: string) =>
    g.call(rmsNorm, [x, g.weight(weight, [config.hiddenSize])], { eps: config.rmsNormEps });

  const attended = hyperConnection(g, config, `${name}.hc_attn`, streams, (x) => {
    const normed = g.label(`${name}.attn.input`, norm(x, `${name}.attn_norm.weight`));
    return g.label(`${name}.attn.output`, attention(g, config, `${name}.attn`, ratio, normed, step));
  });
  g.label(`${name}.streams_mid`, attended);
  return hyperConnection(g, config, `${name}.hc_ffn`, attended, (x) => {
    const normed = g.label(`${name}.ffn.input`, norm(x, `${name}.ffn_norm.weight`));
    const routing = router(g, config, `${name}.ffn.gate`, hashRouted, normed, step);
    return mixtureOfExperts(g, config, `${name}.ffn`, normed, routing);
  });
}
