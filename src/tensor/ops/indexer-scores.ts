/**
 * How much each compressed entry matters to a query (DeepSeek-V3.2 report, lightning indexer)
 *   score_w = sum over h of weights_h * max(0, q_h . key_w)
 *   queries [tokens, indexHeads, width], weights [tokens, indexHeads] (signed, scaled), keys [poolRows, width] (cache),
 *   pages [sequences, tableWidth] (i32), sequences [tokens] (i32), positions [tokens] (i32),
 *   optional blocks [tokens, n] (i32, rising, padded with -1) -> scores [tokens, visible]
 * A query at position t sees the entries w < floor((t + 1) / ratio), one it completes itself among them; the others score
 * -Infinity. `visible` is the largest number any query of the step sees. With blocks (the candidate pool of DeepSeek V4.1) it
 * sees only entries inside its own, `blockSize` neighbouring ones each: outside nothing is computed.
 */
import { defineOp, integerTensor, randomTensor } from "../op.ts";
import { poolRow } from "../paging.ts";
import { requireShape } from "../shape.ts";

export interface IndexerAttributes {
  readonly ratio: number;
  readonly pageRows: number;
  /** With blocks: the entries of each. */
  readonly blockSize?: number;
}

export const indexerScores = defineOp<IndexerAttributes>({
  name: "indexerScores",
  infer([queries, weights, , , sequences, positions, blocks], { ratio }) {
    const [tokens, heads] = queries!.shape;
    requireShape("indexerScores: weights", weights!.shape, [tokens!, heads!]);
    requireShape("indexerScores: sequences", sequences!.shape, [tokens!]);
    requireShape("indexerScores: positions", positions!.shape, [tokens!]);
    if (blocks !== undefined) requireShape("indexerScores: blocks", [blocks.shape[0]!], [tokens!]);
    return [{ dtype: "f32", shape: [tokens!, `visible.${ratio}`] }];
  },
  reference({ inputs, outputs: [scores], inputShapes, outputShapes, attributes: { ratio, pageRows, blockSize = 1 } }) {
    const [queries, weights, keys, pages, sequences, positions, blocks] = inputs;
    const [tokens, heads, width] = inputShapes[0]!;
    const tableWidth = inputShapes[3]![1]!;
    const columns = outputShapes[0]![1]!;
    for (let t = 0; t < tokens!; t++) {
      const visible = Math.floor((positions![t]! + 1) / ratio);
      const poolSize = inputShapes[6]?.[1] ?? 0;
      const pool = blocks && new Set(blocks.subarray(t * poolSize, (t + 1) * poolSize));
      for (let w = 0; w < columns; w++) {
        if (w >= visible || pool?.has(Math.floor(w / blockSize)) === false) {
          scores![t * columns + w] = Number.NEGATIVE_INFINITY;
          continue;
        }
        const key = poolRow(pages!, tableWidth, pageRows, sequences![t]!, w) * width!;
        let score = 0;
        for (let h = 0; h < heads!; h++) {
          let product = 0;
          for (let c = 0; c < width!; c++) product += queries![(t * heads! + h) * width! + c]! * keys![key + c]!;
          if (product > 0) score += weights![t * heads! + h]! * product;
        }
        scores![t * columns + w] = score;
      }
    }
  },
  tolerance: 1e-6,
  cases: () => [
    {
      name: "two sequences, different positions",
      inputs: [
        randomTensor([3, 2, 6], 1),
        randomTensor([3, 2], 2),
        randomTensor([16, 6], 3),
        integerTensor([2, 2], [3, 1, 0, 2]),
        integerTensor([3], [0, 0, 1]),
        integerTensor([3], [2, 19, 11]),
      ],
      attributes: { ratio: 4, pageRows: 4 },
    },
    {
      name: "inside a pool: some blocks, none, and one beyond what is seen",
      inputs: [
        randomTensor([3, 2, 6], 1),
        randomTensor([3, 2], 2),
        randomTensor([64, 6], 3),
        integerTensor([1, 16], [3, 1, 0, 2, 5, 4, 7, 6, 9, 8, 11, 10, 13, 12, 15, 14]),
        integerTensor([3], [0, 0, 0]),
        integerTensor([3], [61, 40, 50]),
        integerTensor([3, 3], [0, 7, 19, -1, -1, -1, 5, 16, 20]),
      ],
      attributes: { ratio: 1, pageRows: 4, blockSize: 3 },
    },
  ],
});
