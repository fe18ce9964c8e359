/**
 * The parameters of a model: what its graphs read, by the names of the official checkpoints, with their shapes. The graph is
 * the only list there is; what a checkpoint must contain follows from it. Tables that are read row by row stand apart: no graph
 * holds them.
 */
import { Graph } from "../tensor/graph.ts";
import type { ModelConfig } from "./config.ts";
import { recordMultiTokenPrediction } from "./multi-token-prediction.ts";
import { recordInSteps, recordTransformer } from "./transformer.ts";
import { recordMarkovHead } from "./v41/drafter.ts";

export interface Parameter {
  readonly name: string;
  /** Routed experts are one parameter a layer and role: [experts, out, in]. */
  readonly shape: readonly number[];
  readonly kind: "matrix" | "vector" | "integers";
  /** True if it is only multiplied with, or rows of it are looked up: devices may keep it in the format of its file. */
  readonly isFactor: boolean;
  /** Rows and columns that share an FP8 scale, where they are not the checkpoint's. */
  readonly scaleBlock?: readonly [number, number];
}

export function modelParameters(config: ModelConfig): Parameter[] {
  return parametersOf(recordTransformer(config));
}

/** The same in steps of a layer each. */
export function* modelParametersInSteps(config: ModelConfig): Generator<undefined, Parameter[]> {
  return parametersOf(yield* recordInSteps(config));
}

/** The parameters of what drafts, which the main model does not have. */
export function drafterParameters(config: ModelConfig): Parameter[] {
  const own = drafterGraphs(config).flatMap(parametersOf);
  return [...new Map(own.map((parameter) => [parameter.name, parameter])).values()].filter(({ name }) =>
    name.startsWith("mtp."),
  );
}

function drafterGraphs(config: ModelConfig): Graph[] {
  if (config.architecture === "deepseek-v4") {
    const streams = ["tokens", config.hcMult, config.hiddenSize] as const;
    return Array.from({ length: config.numMtpModules }, (_, module) => {
      const g = new Graph();
      recordMultiTokenPrediction(g, config, g.input("streams", "f32", streams), module);
      return g;
    });
  }
  if (config.drafter === undefined) return [];
  return [recordTransformer(config, { drafts: true }), recordMarkovHead(config, config.drafter)];
}

/** The tables of Engram, one for each of its layers, in their order: [rows, headDim]. */
export function engramTables(config: ModelConfig): Parameter[] {
  if (config.architecture !== "deepseek-v4.1" || config.engram === undefined) return [];
  const { layers, tableRows, headDim } = config.engram;
  return layers.map((layer, i) => ({
    name: `layers.${layer}.engram.embed.weight`,
    shape: [tableRows[i]!, headDim],
    kind: "matrix",
    isFactor: true,
    scaleBlock: [1, 32],
  }));
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
