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
import type { ModelConfig, Rounding } from "../config.ts";
import { roundedInput } from "../rounding.ts";
import type { Routing } from "./router.ts";

type Sizes = Pick<
  ModelConfig,
  "numExperts" | "numSharedExperts" | "moeIntermediateSize" | "hiddenSize" | "swigluLimit"
>;

export function mixtureOfExperts(
  g: Graph,
  sizes: Sizes,
  name: string,
  x: Tensor,
  { chosen, weights }: Routing,
  rounding: Rounding = "none",
): Tensor {
  const { numExperts: count, moeIntermediateSize: width, hiddenSize, swigluLimit: limit } = sizes;
  const input = roundedInput(g, rounding, x);
  const routed = g.call(
    experts,
    [
      input,
      chosen,
      weights,
      g.weight(`${name}.experts.w1.weight`, [count, width, hiddenSize]),
      g.weight(`${name}.experts.w3.weight`, [count, width, hiddenSize]),
      g.weight(`${name}.experts.w2.weight`, [count, hiddenSize, width]),
    ],
    { limit, ...(rounding === "caches-and-inputs" ? { roundsHidden: true } : {}) },
  );
  g.label(`${name}.routed`, routed);
  if (sizes.numSharedExperts === 0) return routed;
  const shared = g.label(`${name}.shared`, sharedExpert(g, sizes, `${name}.shared_experts`, input, rounding));
  return g.call(add, [routed, shared], {});
}

function sharedExpert(g: Graph, sizes: Sizes, name: string, x: Tensor, rounding: Rounding): Tensor {
  const { hiddenSize, swigluLimit: limit } = sizes;
  const width = sizes.moeIntermediateSize * sizes.numSharedExperts;
  const gate = g.call(linear, [x, g.weight(`${name}.w1.weight`, [width, hiddenSize])], {});
  const up = g.call(linear, [x, g.weight(`${name}.w3.weight`, [width, hiddenSize])], {});
  const hidden = roundedInput(g, rounding, g.call(swiglu, [gate, up], { limit }));
  return g.call(linear, [hidden, g.weight(`${name}.w2.weight`, [hiddenSize, width])], {});
}
