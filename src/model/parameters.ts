/**
 * The parameters of a model: what its graphs read, by the names of the official checkpoints, with their shapes. The graph is
 * the only list there is; what a checkpoint must contain follows from it.
 */
import type { Graph } from "../tensor/graph.ts";
import type { ModelConfig } from "./config.ts";
import { recordMultiTokenPrediction } from "./multi-token-prediction.ts";
import { recordTransformer } from "./transformer.ts";

export interface Parameter {
  readonly name: string;
  /** Routed experts are one parameter a layer and role: [experts, out, in]. */
  readonly shape: readonly number[];
  readonly kind: "matrix" | "vector" | "integers";
}

export function modelParameters(config: ModelConfig): Parameter[] {
  return parametersOf(recordTransformer(config));
}

/** The parameters of an MTP module that the main model does not have. */
export function mtpParameters(config: ModelConfig, module: number): Parameter[] {
  return parametersOf(recordMultiTokenPrediction(config, module)).filter(({ name }) => name.startsWith("mtp."));
}

function parametersOf(graph: Graph): Parameter[] {
  return [...graph.weights].map(([name, { dtype, shape }]) => ({
    name,
    shape: shape as readonly number[], // weights have no named sizes
    kind: dtype === "i32" ? "integers" : shape.length === 1 ? "vector" : "matrix",
  }));
}
