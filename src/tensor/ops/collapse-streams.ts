/**
 * One vector out of the residual streams: u = sum over j of weight_j * x_j (mHC, arXiv 2512.24880)
 *   streams [tokens, n, hiddenSize], weights [tokens, n] -> u [tokens, hiddenSize]
 */
import { defineOp, randomTensor } from "../op.ts";
import { requireShape } from "../shape.ts";

export const collapseStreams = defineOp<Record<string, never>>({
  name: "collapseStreams",
  infer([streams, weights]) {
    const [tokens, n, width] = streams!.shape;
    requireShape("collapseStreams: weights", weights!.shape, [tokens!, n!]);
    return [{ dtype: "f32", shape: [tokens!, width!] }];
  },
  reference({ inputs: [streams, weights], outputs: [u], inputShapes: [shape] }) {
    const [tokens, n, width] = shape!;
    for (let t = 0; t < tokens!; t++) {
      for (let c = 0; c < width!; c++) {
        let sum = 0;
        for (let j = 0; j < n!; j++) sum += weights![t * n! + j]! * streams![(t * n! + j) * width! + c]!;
        u![t * width! + c] = sum;
      }
    }
  },
  tolerance: 1e-6,
  cases: () => [
    { name: "usual", inputs: [randomTensor([3, 4, 10], 1), randomTensor([3, 4], 2)], attributes: {} },
    { name: "no token", inputs: [randomTensor([0, 4, 10], 3), randomTensor([0, 4], 4)], attributes: {} },
  ],
});
