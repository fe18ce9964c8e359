/**
 * Two rows one behind the other: y[i] = a[i] ++ b[i]
 *   a [n, first], b [n, second] -> y [n, first + second]
 */
import { defineOp, randomTensor } from "../op.ts";
import { requireShape } from "../shape.ts";

export const joinColumns = defineOp<Record<string, never>>({
  name: "joinColumns",
  infer([a, b]) {
    requireShape("joinColumns: rows", [b!.shape[0]!], [a!.shape[0]!]);
    return [{ dtype: "f32", shape: [a!.shape[0]!, (a!.shape[1] as number) + (b!.shape[1] as number)] }];
  },
  reference({ inputs: [a, b], outputs: [y], inputShapes }) {
    const [n, first] = inputShapes[0]!;
    const second = inputShapes[1]![1]!;
    for (let i = 0; i < n!; i++) {
      const row = i * (first! + second);
      for (let c = 0; c < first!; c++) y![row + c] = a![i * first! + c]!;
      for (let c = 0; c < second; c++) y![row + first! + c] = b![i * second + c]!;
    }
  },
  tolerance: 0, // a copy
  cases: () => [
    { name: "usual", inputs: [randomTensor([3, 5], 1), randomTensor([3, 2], 2)], attributes: {} },
    { name: "no row", inputs: [randomTensor([0, 5], 3), randomTensor([0, 2], 4)], attributes: {} },
  ],
});
