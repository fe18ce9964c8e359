/**
 * Kernel of `sparseAttention`: the visible rows of a token are gathered once, in the order of the op, and serve all heads.
 *   gathered [keys, headDim] float32
 * Logits and weights of one head at a time; the weighted sum runs with the channel innermost.
 */
import type { Call } from "../../../tensor/op.ts";
import type { AttentionAttributes } from "../../../tensor/ops/sparse-attention.ts";
import { poolRow } from "../../../tensor/paging.ts";
import { multiply } from "./matrix-product.ts";
import { float32Scratch, float64Scratch } from "./scratch.ts";

const gathered = float32Scratch();
const logitRows = float64Scratch();
const queryRows = float64Scratch();
const sums = float64Scratch();

export function sparseAttentionKernel(call: Call<AttentionAttributes>): void {
  const [queries, sinks] = call.inputs;
  const [output, mass] = call.outputs;
  const [tokens, heads, headDim] = call.inputShapes[0]!;
  const scale = 1 / Math.sqrt(headDim!);
  const sum = sums.take(headDim!);
  for (let t = 0; t < tokens!; t++) {
    const keys = gatherKeys(call, t, headDim!);
    const logits = logitRows.take(heads! * keys);
    const rows = gathered.take(keys * headDim!);
    const query = queryRows.convert(queries!.subarray(t * heads! * headDim!, (t + 1) * heads! * headDim!));
    multiply({
      weight: rows,
      weightOffset: 0,
      rows: keys,
      columns: headDim!,
      x: query,
      xOffset: 0,
      xStride: headDim!,
      y: logits,
      yOffset: 0,
      yStride: keys,
      tokens: heads!,
    });
    for (let h = 0; h < heads!; h++) {
      const { weightOfKeys, total } = softmax(logits, h * keys, keys, sinks![h]!, scale);
      sum.fill(0, 0, headDim!);
      addWeightedRows(sum, rows, headDim!, logits, h * keys, keys);
      const to = (t * heads! + h) * headDim!;
      for (let c = 0; c < headDim!; c++) output![to + c] = sum[c]! / total;
      mass![t * heads! + h] = weightOfKeys / total;
    }
  }
}

/** sum += weight_i * row_i, in the order of the rows; four at a time, so that the sum is loaded a quarter as often. */
function addWeightedRows(
  sum: Float64Array,
  rows: Float32Array,
  width: number,
  weights: Float64Array,
  first: number,
  count: number,
): void {
  let i = 0;
  for (; i + 4 <= count; i += 4) {
    const [w0, w1, w2, w3] = [
      weights[first + i]!,
      weights[first + i + 1]!,
      weights[first + i + 2]!,
      weights[first + i + 3]!,
    ];
    const r0 = i * width;
    const r1 = r0 + width;
    const r2 = r1 + width;
    const r3 = r2 + width;
    for (let c = 0; c < width; c++) {
      sum[c] = sum[c]! + w0 * rows[r0 + c]! + w1 * rows[r1 + c]! + w2 * rows[r2 + c]! + w3 * rows[r3 + c]!;
    }
  }
  for (; i < count; i++) {
    const weight = weights[first + i]!;
    for (let c = 0; c < width; c++) sum[c] = sum[c]! + weight * rows[i * width + c]!;
  }
}

/** Logits become weights that are not yet divided by their total. */
function softmax(logits: Float64Array, start: number, keys: number, sink: number, scale: number) {
  let largest = sink;
  for (let i = start; i < start + keys; i++) {
    logits[i] = logits[i]! * scale;
    if (logits[i]! > largest) largest = logits[i]!;
  }
  let weightOfKeys = 0;
  for (let i = start; i < start + keys; i++) {
    logits[i] = Math.exp(logits[i]! - largest);
    weightOfKeys += logits[i]!;
  }
  return { weightOfKeys, total: weightOfKeys + Math.exp(sink - largest) };
}

/** Copies the rows that token t sees into `gathered`, the window from old to new, then the entries; returns their number. */
function gatherKeys(call: Call<AttentionAttributes>, t: number, headDim: number): number {
  const [, , positions, sequences, window, windowPages, entries, entryPages, selected] = call.inputs;
  const { windowSize, ratio, windowPageRows, entryPageRows } = call.attributes;
  const position = positions![t]!;
  const sequence = sequences![t]!;
  const first = Math.max(0, position - windowSize + 1);
  const visible = entries ? Math.floor((position + 1) / ratio) : 0;
  const k = selected ? call.inputShapes[8]![1]! : visible;
  const rows = gathered.take((position - first + 1 + k) * headDim);
  let count = 0;
  const copy = (pool: ArrayLike<number>, row: number) => {
    const to = count++ * headDim;
    for (let c = 0; c < headDim; c++) rows[to + c] = pool[row * headDim + c]!;
  };
  const windowWidth = call.inputShapes[5]![1]!;
  for (let p = first; p <= position; p++)
    copy(window!, poolRow(windowPages!, windowWidth, windowPageRows, sequence, p));
  if (!entries) return count;
  const entryWidth = call.inputShapes[7]![1]!;
  for (let i = 0; i < k; i++) {
    const entry = selected ? selected[t * k + i]! : i;
    if (entry >= 0) copy(entries, poolRow(entryPages!, entryWidth, entryPageRows, sequence, entry));
  }
  return count;
}
