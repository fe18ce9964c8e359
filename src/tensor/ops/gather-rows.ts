/**
 * Rows of a table by index: y[i] = table[index[i]]
 *   table [rows, width], index [n] (i32) -> y [n, width], of the table's dtype
 * Embedding lookup, the expert table of hash routing, the choice of the positions that get logits. The caller checks the
 * indices: a token id is checked once where it enters, not in every layer.
 */
import { defineOp, integerTensor, randomTensor } from "../op.ts";
import { countElements } from "../shape.ts";

export const gatherRows = defineOp<Record<string, never>>({
  name: "gatherRows",
  infer([table, index]) {
    return [{ dtype: table!.dtype, shape: [index!.shape[0]!, ...table!.shape.slice(1)] }];
  },
  reference({ inputs: [table, index], outputs: [y], outputShapes }) {
    const [n, ...rest] = outputShapes[0]!;
    const width = countElements(rest);
    for (let i = 0; i < n!; i++) {
      const row = index![i]! * width;
      for (let c = 0; c < width; c++) y![i * width + c] = table![row + c]!;
    }
  },
  tolerance: 0, // a copy
  cases: () => [
    { name: "usual", inputs: [randomTensor([7, 12], 1), integerTensor([4], [6, 0, 3, 3])], attributes: {} },
    { name: "nothing chosen", inputs: [randomTensor([2, 3], 2), integerTensor([0], [])], attributes: {} },
    { name: "integers", inputs: [integerTensor([2, 2], [5, 6, 7, 8]), integerTensor([1], [1])], attributes: {} },
  ],
});
