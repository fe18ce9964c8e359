/**
 * Rotary position embedding in two dimensions: half of the angles follow the row of a patch, half its column
 *   x [tokens, heads, width], positions [tokens, 2] (i32: row, column) -> y of the same shape
 * Angles are row * frequencies, then column * frequencies (width / 2 in all); channel c turns together with c + width / 2
 * (Su et al. 2021, arXiv 2104.09864, in the half-split form; the text model pairs neighbours). Only the first `rotatedHeads`
 * heads turn: where queries, keys and values lie one behind another, the values stay as they are.
 */
import { defineOp, integerTensor, randomTensor } from "../op.ts";
import { requireShape } from "../shape.ts";

export interface AxialRopeAttributes {
  /** Radians a step, for each quarter of the channels. */
  readonly frequencies: readonly number[];
  readonly rotatedHeads: number;
}

export const axialRope = defineOp<AxialRopeAttributes>({
  name: "axialRope",
  infer([x, positions], { frequencies }) {
    requireShape("axialRope: positions", positions!.shape, [x!.shape[0]!, 2], "A row and a column for each token");
    requireShape("axialRope: the last axis of x", [x!.shape[2]!], [4 * frequencies.length]);
    return [x!];
  },
  reference({ inputs: [x, positions], outputs: [y], inputShapes: [shape], attributes: { frequencies, rotatedHeads } }) {
    const [tokens, heads, width] = shape as [number, number, number];
    const half = width / 2;
    if (y !== x) for (let i = 0; i < y!.length; i++) y![i] = x![i]!;
    for (let t = 0; t < tokens; t++) {
      for (let a = 0; a < half; a++) {
        const axis = a < frequencies.length ? 0 : 1;
        const angle = positions![2 * t + axis]! * frequencies[a - axis * frequencies.length]!;
        const [cos, sin] = [Math.cos(angle), Math.sin(angle)];
        for (let h = 0; h < rotatedHeads; h++) {
          const c = (t * heads + h) * width + a;
          const [first, second] = [x![c]!, x![c + half]!];
          y![c] = first * cos - second * sin;
          y![c + half] = second * cos + first * sin;
        }
      }
    }
  },
  mayOverwrite: true,
  tolerance: 1e-6,
  cases: () => [
    {
      name: "queries, keys and values",
      inputs: [randomTensor([3, 6, 8], 1), integerTensor([3, 2], [0, 0, 2, 1, 40, 35])],
      attributes: { frequencies: [1, 0.1], rotatedHeads: 4 },
    },
    {
      name: "wide heads",
      inputs: [randomTensor([2, 2, 64], 2), integerTensor([2, 2], [1, 120, 69, 0])],
      attributes: { frequencies: Array.from({ length: 16 }, (_, i) => 10_000 ** (-i / 16)), rotatedHeads: 2 },
    },
    {
      name: "no token",
      inputs: [randomTensor([0, 2, 4], 3), integerTensor([0, 2], [])],
      attributes: { frequencies: [1], rotatedHeads: 2 },
    },
  ],
});
