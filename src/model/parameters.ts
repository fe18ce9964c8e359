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
  /** True if it is only multiplied with, or rows of it are looked up: devices may keep it in the format of its file. */
  readonly isFactor: boolean;
}

export function modelParameters(config: ModelConfig): Parameter[] {
  return parametersOf(recordTransformer(config));
}

/** The parameters of an MTP module that the main model does not have. */
export function mtpParameters(config: ModelConfig, module: number): Parameter[] {
  return parametersOf(recordMultiTokenPrediction(config, module)).filter(({ name }) => name.startsWith("mtp."));
}

/** Ops, and which of their inputs are matrices that they read as they are stored. */
const factorInputs: ReadonlyMap<string, readonly number[]> = new Map([
  ["linear", [1]],
  ["groupedLinear", [1]],
  ["experts", [3, 4, 5]],
  ["gatherRows", [0]],
]);

export function parametersOf(graph: Graph): Parameter[] {
  const otherwise = new Set<string>();
  for (const { op, inputs } of graph.nodes) {
    inputs.forEach(({ storage }, i) => {
      if (storage.kind === "weight" && !factorInputs.get(op.name)?.includes(i)) otherwise.add(storage.name);
    });
  }
  return [...graph.weights].map(([name, { dtype, shape }]) => ({
    name,
    shape: shape as readonly number[], // weights have no named sizes
    kind: dtype === "i32" ? "integers" : shape.length === 1 ? "vector" : "matrix",
    isFactor: dtype === "f32" && shape.length > 1 && !otherwise.has(name),
  }));
}
