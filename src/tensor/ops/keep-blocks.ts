/**
 * Scores inside the chosen blocks; all others become -Infinity, so that nothing outside the candidate pool is selected
 *   scores [tokens, visible], blocks [tokens, n] (i32, rising, padded with -1) -> y of the shape of scores
 */
import { defineOp, integerTensor, randomTensor } from "../op.ts";
import { requireShape } from "../shape.ts";

export const keepBlocks = defineOp<{ readonly blockSize: number }>({
  name: "keepBlocks",
  infer([scores, blocks]) {
    requireShape("keepBlocks: blocks", [blocks!.shape[0]!], [scores!.shape[0]!]);
    return [scores!];
  },
  reference({ inputs: [scores, blocks], outputs: [y], inputShapes, attributes: { blockSize } }) {
    const [tokens, columns] = inputShapes[0]!;
    const n = inputShapes[1]![1]!;
    for (let t = 0; t < tokens!; t++) {
      let next = 0;
      for (let w = 0; w < columns!; w++) {
        const block = Math.floor(w / blockSize);
        while (next < n && blocks![t * n + next]! >= 0 && blocks![t * n + next]! < block) next++;
        const isInside = next < n && blocks![t * n + next] === block;
        y![t * columns! + w] = isInside ? scores![t * columns! + w]! : Number.NEGATIVE_INFINITY;
      }
    }
  },
  mayOverwrite: true,
  tolerance: 0, // a copy
  cases: () => [
    {
      name: "some blocks, none, and more than there are columns",
      inputs: [randomTensor([3, 10], 1), integerTensor([3, 2], [1, 3, -1, -1, 2, 9])],
      attributes: { blockSize: 3 },
    },
  ],
});
