/**
 * One vector out of the residual streams, with weights that are known when the graph is recorded: u = sum over j of weight_j * x_j
 *   streams [tokens, n, hiddenSize] -> u [tokens, hiddenSize]
 * The first stream alone is what a network with carried coefficients begins with; their mean is what a drafter reads.
 */
import { defineOp, randomTensor } from "../op.ts";
import { requireShape } from "../shape.ts";

export const combineStreams = defineOp<{ readonly weights: readonly number[] }>({
  name: "combineStreams",
  infer([streams], { weights }) {
    const [tokens, n, width] = streams!.shape;
    requireShape("combineStreams: weights", [weights.length], [n!]);
    return [{ dtype: "f32", shape: [tokens!, width!] }];
  },
  reference({ inputs: [streams], outputs: [u], inputShapes: [shape], attributes: { weights } }) {
    const [tokens, n, width] = shape!;
    for (let t = 0; t < tokens!; t++) {
      for (let c = 0; c < width!; c++) {
        let sum = 0;
        for (let j = 0; j < n!; j++) sum += weights[j]! * streams![(t * n! + j) * width! + c]!;
        u![t * width! + c] = sum;
      }
    }
  },
  tolerance: 1e-6,
  cases: () => [
    { name: "the first", inputs: [randomTensor([3, 4, 10], 1)], attributes: { weights: [1, 0, 0, 0] } },
    { name: "the mean", inputs: [randomTensor([2, 2, 37], 2)], attributes: { weights: [0.5, 0.5] } },
    { name: "no token", inputs: [randomTensor([0, 2, 4], 3)], attributes: { weights: [0.5, 0.5] } },
  ],
});
