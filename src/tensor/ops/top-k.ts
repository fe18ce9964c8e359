/**
 * The k greatest of each row, as a set: their indices in rising order, padded with -1
 *   scores [rows, n] -> indices [rows, k] (i32)
 * Of equal scores the lower index is taken first. -Infinity and NaN are never chosen.
 */
import { defineOp, randomTensor } from "../op.ts";

export const topK = defineOp<{ readonly k: number }>({
  name: "topK",
  infer([scores], { k }) {
    return [{ dtype: "i32", shape: [scores!.shape[0]!, k] }];
  },
  reference({ inputs: [scores], outputs: [indices], inputShapes, attributes: { k } }) {
    const [rows, n] = inputShapes[0]!;
    for (let row = 0; row < rows!; row++) {
      const candidates: number[] = [];
      for (let i = 0; i < n!; i++) if (scores![row * n! + i]! > Number.NEGATIVE_INFINITY) candidates.push(i);
      candidates.sort((a, b) => scores![row * n! + b]! - scores![row * n! + a]! || a - b);
      const chosen = candidates.slice(0, k).sort((a, b) => a - b);
      for (let i = 0; i < k; i++) indices![row * k + i] = chosen.at(i) ?? -1;
    }
  },
  tolerance: 0, // a set of integers
  cases: () => [
    { name: "usual", inputs: [randomTensor([5, 40], 1)], attributes: { k: 7 } },
    { name: "fewer than k", inputs: [randomTensor([2, 3], 2)], attributes: { k: 5 } },
    { name: "long rows, of random numbers", inputs: [randomTensor([2, 9000], 4)], attributes: { k: 300 } },
    { name: "long rows of which half is wanted", inputs: [randomTensor([2, 6000], 5)], attributes: { k: 3000 } },
    { name: "long rows that rise, fall and repeat", inputs: [longRows], attributes: { k: 100 } },
    { name: "no column", inputs: [randomTensor([2, 0], 3)], attributes: { k: 2 } },
    {
      name: "ties, -Infinity and NaN",
      inputs: [
        {
          dtype: "f32",
          shape: [2, 5],
          values: [1, 2, 2, 2, 1, Number.NEGATIVE_INFINITY, Number.NaN, 0, Number.NEGATIVE_INFINITY, -1],
        },
      ],
      attributes: { k: 2 },
    },
  ],
});

const length = 12_000;
const longRows = {
  dtype: "f32" as const,
  shape: [4, length],
  values: [
    ...Array.from({ length }, (_, i) => i - 5000),
    ...Array.from({ length }, (_, i) => 5000 - i),
    ...Array.from({ length }, (_, i) => (i * 7919) % 13),
    ...Array.from({ length }, (_, i) => (i % 500 === 3 ? -(i % 3) : Number.NEGATIVE_INFINITY)),
  ],
};
