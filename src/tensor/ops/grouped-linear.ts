/**
 * A matrix product apart for each group: y[g] = W[g] x[g]
 *   x [tokens, groups, in], weight [groups * out, in] -> y [tokens, groups * out]
 * The first half of the output projection: rows g*out .. g*out + out - 1 of the weight belong to group g.
 */
import { defineOp, randomTensor } from "../op.ts";
import { requireShape, type Shape } from "../shape.ts";

export const groupedLinear = defineOp<Record<string, never>>({
  name: "groupedLinear",
  infer([x, weight]) {
    const [tokens, groups, columns] = x!.shape;
    const rows = weight!.shape[0] as number;
    const whole: Shape = [Math.ceil(rows / (groups as number)) * (groups as number), columns!];
    requireShape("groupedLinear: weight", weight!.shape, whole, "Its rows are the same number for every group");
    return [{ dtype: "f32", shape: [tokens!, rows] }];
  },
  reference({ inputs: [x, weight], outputs: [y], inputShapes }) {
    const [tokens, groups, columns] = inputShapes[0]!;
    const rows = inputShapes[1]![0]!;
    const out = rows / groups!;
    for (let t = 0; t < tokens!; t++) {
      for (let r = 0; r < rows; r++) {
        const from = (t * groups! + Math.floor(r / out)) * columns!;
        let sum = 0;
        for (let i = 0; i < columns!; i++) sum += weight![r * columns! + i]! * x![from + i]!;
        y![t * rows + r] = sum;
      }
    }
  },
  tolerance: 1e-5, // as linear
  cases: () => [
    { name: "usual", inputs: [randomTensor([5, 2, 24], 1), randomTensor([14, 24], 2)], attributes: {} },
    { name: "one group", inputs: [randomTensor([1, 1, 9], 3), randomTensor([4, 9], 4)], attributes: {} },
    { name: "no token", inputs: [randomTensor([0, 2, 4], 5), randomTensor([4, 4], 6)], attributes: {} },
  ],
});
