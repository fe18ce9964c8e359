/**
 * Sum, element by element. b may be a row that is added to every row of a.
 *   a [..., width], b of the same shape or [width] -> a + b
 */
import { defineOp, randomTensor } from "../op.ts";
import { requireShape } from "../shape.ts";

export const add = defineOp<Record<string, never>>({
  name: "add",
  infer([a, b]) {
    if (b!.shape.length === 1) requireShape("add: b", b!.shape, [a!.shape.at(-1)!]);
    else requireShape("add: b", b!.shape, a!.shape);
    return [a!];
  },
  reference({ inputs: [a, b], outputs: [y] }) {
    const period = b!.length;
    for (let i = 0, j = 0; i < y!.length; i++) {
      y![i] = a![i]! + b![j]!;
      if (++j === period) j = 0;
    }
  },
  mayOverwrite: true,
  tolerance: 1e-7,
  cases: () => [
    { name: "same shape", inputs: [randomTensor([3, 4], 1), randomTensor([3, 4], 2)], attributes: {} },
    { name: "a row", inputs: [randomTensor([3, 4], 3), randomTensor([4], 4)], attributes: {} },
    { name: "no token", inputs: [randomTensor([0, 4], 5), randomTensor([4], 6)], attributes: {} },
  ],
});
