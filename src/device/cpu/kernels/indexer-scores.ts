/** Kernel of `indexerScores`: one entry at a time against all heads of a query, whose row of keys is then in the cache. */
import type { Call } from "../../../tensor/op.ts";
import type { IndexerAttributes } from "../../../tensor/ops/indexer-scores.ts";
import { poolRow } from "../../../tensor/paging.ts";
import { multiply } from "./matrix-product.ts";
import { float64Scratch } from "./scratch.ts";

const key = float64Scratch();
const products = float64Scratch();

export function indexerScoresKernel(call: Call<IndexerAttributes>): void {
  const { ratio, pageRows } = call.attributes;
  const [queries, weights, keys, pages, sequences, positions] = call.inputs;
  const [tokens, heads, width] = call.inputShapes[0]!;
  const tableWidth = call.inputShapes[3]![1]!;
  const columns = call.outputShapes[0]![1]!;
  const scores = call.outputs[0]!;
  const product = products.take(heads!);
  const row = key.take(width!);
  for (let t = 0; t < tokens!; t++) {
    const visible = Math.min(columns, Math.floor((positions![t]! + 1) / ratio));
    for (let w = 0; w < visible; w++) {
      const from = poolRow(pages!, tableWidth, pageRows, sequences![t]!, w) * width!;
      for (let c = 0; c < width!; c++) row[c] = keys![from + c]!;
      multiply({
        weight: queries!,
        weightOffset: t * heads! * width!,
        rows: heads!,
        columns: width!,
        x: row,
        xOffset: 0,
        xStride: width!,
        y: product,
        yOffset: 0,
        yStride: heads!,
        tokens: 1,
      });
      let score = 0;
      for (let h = 0; h < heads!; h++) if (product[h]! > 0) score += weights![t * heads! + h]! * product[h]!;
      scores[t * columns + w] = score;
    }
    scores.fill(Number.NEGATIVE_INFINITY, t * columns + visible, (t + 1) * columns);
  }
}
