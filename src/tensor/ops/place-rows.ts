/**
 * Rows that stand in place of others: y[t] = rowOf[t] < 0 ? x[t] : rows[rowOf[t]]
 *   x [tokens, width], rows [placed, width], rowOf [tokens] (i32) -> y [tokens, width]
 * What is known of an image takes the place of the embeddings of its tokens. The caller checks the indices.
 */
import { defineOp, integerTensor, randomTensor } from "../op.ts";
import { requireShape } from "../shape.ts";

export const placeRows = defineOp<Record<string, never>>({
  name: "placeRows",
  infer([x, rows, rowOf]) {
    requireShape("placeRows: rows", rows!.shape.slice(1), x!.shape.slice(1));
    requireShape("placeRows: row numbers", rowOf!.shape, [x!.shape[0]!]);
    return [x!];
  },
  reference({ inputs: [x, rows, rowOf], outputs: [y], inputShapes }) {
    const [tokens, width] = inputShapes[0] as [number, number];
    for (let t = 0; t < tokens; t++) {
      const row = rowOf![t]!;
      for (let c = 0; c < width; c++) y![t * width + c] = row < 0 ? x![t * width + c]! : rows![row * width + c]!;
    }
  },
  mayOverwrite: true,
  tolerance: 0, // a copy
  cases: () => [
    {
      name: "text and images",
      inputs: [randomTensor([5, 6], 1), randomTensor([3, 6], 2), integerTensor([5], [-1, 2, 0, -1, 1])],
      attributes: {},
    },
    {
      name: "no image",
      inputs: [randomTensor([2, 3], 3), randomTensor([0, 3], 4), integerTensor([2], [-1, -1])],
      attributes: {},
    },
  ],
});
