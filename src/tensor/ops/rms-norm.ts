/**
 * RMS norm over the last axis: y = x / sqrt(mean(x^2) + eps), times the weight where there is one
 *   x [..., width], weight [width] (optional) -> y [..., width]
 * Zhang & Sennrich 2019 (arXiv 1910.07467), equation 4. The sum of squares is taken in float64 and in the order of the
 * channels, whatever x is stored in.
 */
import { defineOp, randomTensor } from "../op.ts";
import { requireShape } from "../shape.ts";

export const rmsNorm = defineOp<{ readonly eps: number }>({
  name: "rmsNorm",
  infer([x, weight]) {
    if (weight) requireShape("rmsNorm: weight", weight.shape, [x!.shape.at(-1)!], "Load the norm weight of x's layer");
    return [x!];
  },
  reference({ inputs: [x, weight], outputs: [y], inputShapes, attributes: { eps } }) {
    const width = inputShapes[0]!.at(-1)!;
    for (let row = 0; row < y!.length; row += width) {
      let sumOfSquares = 0;
      for (let i = row; i < row + width; i++) sumOfSquares += x![i]! * x![i]!;
      const scale = 1 / Math.sqrt(sumOfSquares / width + eps);
      if (weight) for (let i = 0; i < width; i++) y![row + i] = x![row + i]! * scale * weight[i]!;
      else for (let i = row; i < row + width; i++) y![i] = x![i]! * scale;
    }
  },
  mayOverwrite: true,
  tolerance: 1e-6, // one rounding of the result
  cases: () => [
    { name: "usual", inputs: [randomTensor([3, 64], 1), randomTensor([64], 2)], attributes: { eps: 1e-6 } },
    { name: "per head, no weight", inputs: [randomTensor([2, 3, 5], 3)], attributes: { eps: 1e-2 } },
    { name: "no token", inputs: [randomTensor([0, 8], 4), randomTensor([8], 5)], attributes: { eps: 1e-6 } },
    {
      name: "squares beyond float32",
      inputs: [randomTensor([3, 70], 7, 1e30), randomTensor([70], 8)],
      attributes: { eps: 1e-6 },
    },
    { name: "tiny values", inputs: [randomTensor([2, 8], 6, 1e-20)], attributes: { eps: 1e-20 } },
  ],
});
