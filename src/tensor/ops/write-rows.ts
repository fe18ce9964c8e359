/**
 * New rows of a cache: pool[slots[i]] = rows[i]
 *   pool [poolRows, width] (cache), rows [n, width], slots [n] (i32) -> the written pool, in the same memory
 */
import { defineOp, integerTensor, randomTensor } from "../op.ts";
import { requireShape } from "../shape.ts";

export const writeRows = defineOp<Record<string, never>>({
  name: "writeRows",
  infer([pool, rows, slots]) {
    requireShape("writeRows: rows", rows!.shape, [slots!.shape[0]!, pool!.shape[1]!]);
    return [pool!];
  },
  reference({ inputs: [, rows, slots], outputs: [pool], inputShapes }) {
    const width = inputShapes[0]![1]!;
    for (let i = 0; i < slots!.length; i++) {
      const to = slots![i]! * width;
      for (let c = 0; c < width; c++) pool![to + c] = rows![i * width + c]!;
    }
  },
  writesInput: true,
  tolerance: 0, // a copy
  cases: () => [
    {
      name: "scattered",
      inputs: [randomTensor([6, 3], 1), randomTensor([2, 3], 2), integerTensor([2], [4, 1])],
      attributes: {},
    },
    {
      name: "nothing new",
      inputs: [randomTensor([2, 3], 3), randomTensor([0, 3], 4), integerTensor([0], [])],
      attributes: {},
    },
  ],
});
