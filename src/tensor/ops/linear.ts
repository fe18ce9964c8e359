/**
 * Matrix product with a weight, no bias: y = W x for every row of x
 *   x [..., in], weight [out, in] -> y [..., out]
 */
import { defineOp, randomTensor } from "../op.ts";
import { requireShape } from "../shape.ts";

export interface LinearAttributes {
  /**
   * The rows of x are always computed together (the patches of an image), so that a device may take the sums of many rows in another
   * order than those of one. Without it a row has bitwise the same product alone and among others.
   */
  readonly inAnyOrder?: boolean;
}

export const linear = defineOp<LinearAttributes>({
  name: "linear",
  infer([x, weight]) {
    const [out, columns] = weight!.shape;
    requireShape("linear: the last axis of x", [x!.shape.at(-1)!], [columns!], "x has as many channels as W columns");
    return [{ dtype: "f32", shape: [...x!.shape.slice(0, -1), out!] }];
  },
  reference({ inputs: [x, weight], outputs: [y], inputShapes }) {
    const [out, columns] = inputShapes[1]!;
    const rows = y!.length / out!;
    for (let t = 0; t < rows; t++) {
      for (let o = 0; o < out!; o++) {
        let sum = 0;
        for (let i = 0; i < columns!; i++) sum += weight![o * columns! + i]! * x![t * columns! + i]!;
        y![t * out! + o] = sum;
      }
    }
  },
  tolerance: 1e-5, // kernels sum in float32, in four sums of a quarter of the columns each, or more
  cases: () => [
    { name: "usual", inputs: [randomTensor([5, 32], 1), randomTensor([17, 32], 2)], attributes: {} },
    { name: "one token", inputs: [randomTensor([1, 192], 3), randomTensor([64, 192], 4)], attributes: {} },
    { name: "odd sizes", inputs: [randomTensor([7, 13], 5), randomTensor([3, 13], 6)], attributes: {} },
    { name: "one by one", inputs: [randomTensor([2, 1], 7), randomTensor([1, 1], 8)], attributes: {} },
    { name: "no token", inputs: [randomTensor([0, 8], 9), randomTensor([4, 8], 10)], attributes: {} },
    { name: "three axes", inputs: [randomTensor([2, 4, 8], 11), randomTensor([6, 8], 12)], attributes: {} },
  ],
});
