/**
 * Mixture of experts: the chosen routed experts, weighted, and one shared expert that every token goes through, unweighted
 *   x [tokens, hiddenSize], normed -> [tokens, hiddenSize]
 * DeepSeekMoE (arXiv 2401.06066). w1 is the gate, w3 up, w2 down, as in the names of the official checkpoints.
 */
import type { Graph, Tensor } from "../../tensor/graph.ts";
import { add } from "../../tensor/ops/add.ts";
import { experts } from "../../tensor/ops/experts.ts";
import { linear } from "../../tensor/ops/linear.ts";
import { swiglu } from "../../tensor/ops/swiglu.ts";
import type { ModelConfig } from "../config.ts";
import type { Step } from "../step.ts";
import { router } from "./router.ts";

export function mixtureOfExperts(
  g: Graph,
  config: ModelConfig,
  name: string,
  hashRouted: boolean,
  x: Tensor,
  step: Step,
): Tensor {
  const { numExperts: count, moeIntermediateSize: width, hiddenSize, swigluLimit: limit } = config;
  const { chosen, weights } = router(g, config, `${name}.gate`, hashRouted, x, step);
  const routed = g.call(
    experts,
    [
      x,
      chosen,
      weights,
      g.weight(`${name}.experts.w1.weight`, [count, width, hiddenSize]),
      g.weight(`${name}.experts.w3.weight`, [count, width, hiddenSize]),
      g.weight(`${name}.experts.w2.weight`, [count, hiddenSize, width]),
    ],
    { limit },
  );
  g.label(`${name}.routed`, routed);
  if (config.numSharedExperts === 0) return routed;
  return g.call(add, [routed, g.label(`${name}.shared`, sharedExpert(g, config, `${name}.shared_experts`, x))], {});
}

function sharedExpert(g: Graph, config: ModelConfig, name: string, x: Tensor): Tensor {
  const { hiddenSize, swigluLimit: limit } = config;
  const width = config.moeIntermediateSize * config.numSharedExperts;
  const gate = g.call(linear, [x, g.weight(`${name}.w1.weight`, [width, hiddenSize])], {});
  const up = g.call(linear, [x, g.weight(`${name}.w3.weight`, [width, hiddenSize])], {});
  const hidden = g.call(swiglu, [gate, up], { limit });
  return g.call(linear, [hidden, g.weight(`${name}.w2.weight`, [hiddenSize, width])], {});
}
