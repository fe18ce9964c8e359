/**
 * Where values are rounded to codes as in the released V4.1 model (OCP FP8 and microscaling formats, NVFP4): caches, index queries,
 * and on demand the inputs of matrices that are released in FP8 or FP4. V4 rounds nothing.
 */
import type { Graph, Tensor } from "../tensor/graph.ts";
import { type BlockRounding, roundBlocks } from "../tensor/ops/round-blocks.ts";
import type { Rounding } from "./config.ts";

/** A value that a cache keeps, or that is multiplied with one. */
export function roundedCache(g: Graph, rounding: Rounding, x: Tensor, format: BlockRounding): Tensor {
  return rounding === "none" ? x : g.call(roundBlocks, [x], { format });
}

/** The input of a matrix that is released in FP8 or FP4. */
export function roundedInput(g: Graph, rounding: Rounding, x: Tensor): Tensor {
  return rounding === "caches-and-inputs" ? roundedCache(g, rounding, x, "fp8") : x;
}
