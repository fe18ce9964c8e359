/**
 * Equal copies of a vector, the start of the residual streams: y[t, k] = x[t]
 *   x [tokens, hiddenSize] -> y [tokens, count, hiddenSize]
 */
import { defineOp, randomTensor } from "../op.ts";

export const repeatStreams = defineOp<{ readonly count: number }>({
  name: "repeatStreams",
  infer([x], { count }) {
    return [{ dtype: "f32", shape: [x!.shape[0]!, count, x!.shape[1]!] }];
  },
  reference({ inputs: [x], outputs: [y], outputShapes: [shape] }) {
    const [tokens, count, width] = shape!;
    for (let t = 0; t < tokens!; t++) {
      for (let k = 0; k < count!; k++) {
        for (let c = 0; c < width!; c++) y![(t * count! + k) * width! + c] = x![t * width! + c]!;
      }
    }
  },
  tolerance: 0, // a copy
  cases: () => [
    { name: "usual", inputs: [randomTensor([3, 5], 1)], attributes: { count: 4 } },
    { name: "no token", inputs: [randomTensor([0, 5], 2)], attributes: { count: 4 } },
  ],
});
