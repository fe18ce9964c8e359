/**
 * Attention of a V4 layer: one softmax over the sliding window, the compressed entries and the sink
 *   queries [tokens, heads, headDim], sinks [heads], positions [tokens] (i32), sequences [tokens] (i32),
 *   window [poolRows, headDim] (cache), windowPages [sequences, tableWidth] (i32),
 *   and where the layer compresses: entries [poolRows, headDim] (cache), entryPages [sequences, tableWidth] (i32),
 *   and where it selects: selected [tokens, k] (i32, rising, padded with -1)
 *   -> output [tokens, heads, headDim], mass [tokens, heads]
 * A row is key and value at once, and the same for all heads. A query at position t sees the window rows
 * t - windowSize + 1 .. t and either the selected entries or all entries w < floor((t + 1) / ratio); a token seen both ways
 * counts twice. The sink is a raw logit per head with value 0: `mass`, the sum of the other weights, is below 1.
 * The sum runs over the window from old to new, then over the entries from first to last; that order is part of the result.
 */
import { type Call, defineOp, type Elements, integerTensor, randomTensor } from "../op.ts";
import { poolRow } from "../paging.ts";
import { requireShape } from "../shape.ts";

export interface AttentionAttributes {
  readonly windowSize: number;
  /** Tokens of a compressed entry; 0 for a layer that has none. */
  readonly ratio: number;
  readonly windowPageRows: number;
  readonly entryPageRows: number;
}

export const sparseAttention = defineOp<AttentionAttributes>({
  name: "sparseAttention",
  infer([queries, sinks, positions, sequences, window, , entries, , selected]) {
    const [tokens, heads, headDim] = queries!.shape;
    requireShape("sparseAttention: sinks", sinks!.shape, [heads!]);
    requireShape("sparseAttention: positions", positions!.shape, [tokens!]);
    requireShape("sparseAttention: sequences", sequences!.shape, [tokens!]);
    requireShape("sparseAttention: window rows", [window!.shape[1]!], [headDim!]);
    if (entries) requireShape("sparseAttention: entries", [entries.shape[1]!], [headDim!]);
    if (selected) requireShape("sparseAttention: selected", [selected.shape[0]!], [tokens!]);
    return [queries!, { dtype: "f32", shape: [tokens!, heads!] }];
  },
  reference(call) {
    const [queries, sinks] = call.inputs;
    const [output, mass] = call.outputs;
    const [tokens, heads, headDim] = call.inputShapes[0]!;
    const scale = 1 / Math.sqrt(headDim!);
    for (let t = 0; t < tokens!; t++) {
      const keys = visibleRows(call, t);
      for (let h = 0; h < heads!; h++) {
        const q = (t * heads! + h) * headDim!;
        const logits = keys.map(({ pool, row }) => {
          let product = 0;
          for (let c = 0; c < headDim!; c++) product += queries![q + c]! * pool[row * headDim! + c]!;
          return product * scale;
        });
        const largest = logits.reduce((a, b) => Math.max(a, b), sinks![h]!);
        const weights = logits.map((logit) => Math.exp(logit - largest));
        const weightOfKeys = weights.reduce((a, b) => a + b, 0);
        const total = weightOfKeys + Math.exp(sinks![h]! - largest);
        for (let c = 0; c < headDim!; c++) {
          let sum = 0;
          keys.forEach(({ pool, row }, i) => {
            sum += weights[i]! * pool[row * headDim! + c]!;
          });
          output![q + c] = sum / total;
        }
        mass![t * heads! + h] = weightOfKeys / total;
      }
    }
  },
  mayOverwrite: true,
  tolerance: 1e-6,
  cases: () => [
    { name: "window only", ...attentionCase(0, false) },
    { name: "all entries", ...attentionCase(8, false) },
    { name: "selected entries", ...attentionCase(4, true) },
  ],
});

/** The rows that token t of the step attends to, in the order of the sum. */
function visibleRows(call: Call<AttentionAttributes>, t: number): { pool: Elements; row: number }[] {
  const [, , positions, sequences, window, windowPages, entries, entryPages, selected] = call.inputs;
  const { windowSize, ratio, windowPageRows, entryPageRows } = call.attributes;
  const position = positions![t]!;
  const sequence = sequences![t]!;
  const rows: { pool: Elements; row: number }[] = [];
  for (let p = Math.max(0, position - windowSize + 1); p <= position; p++) {
    rows.push({ pool: window!, row: poolRow(windowPages!, call.inputShapes[5]![1]!, windowPageRows, sequence, p) });
  }
  if (!entries) return rows;
  const push = (entry: number) =>
    rows.push({ pool: entries, row: poolRow(entryPages!, call.inputShapes[7]![1]!, entryPageRows, sequence, entry) });
  if (selected) {
    const k = call.inputShapes[8]![1]!;
    for (let i = 0; i < k; i++) if (selected[t * k + i]! >= 0) push(selected[t * k + i]!);
  } else {
    for (let w = 0; w < Math.floor((position + 1) / ratio); w++) push(w);
  }
  return rows;
}

/** Three tokens of two sequences, window 5 in pages of 4 rows (a table that wraps), entries in pages of 2. */
function attentionCase(ratio: number, select: boolean) {
  const positions = [3, 15, 16];
  return {
    inputs: [
      randomTensor([3, 2, 6], 1),
      randomTensor([2], 2),
      integerTensor([3], positions),
      integerTensor([3], [1, 0, 0]),
      randomTensor([24, 6], 3),
      integerTensor([2, 3], [4, 2, 0, 1, 3, 5]),
      ...(ratio === 0 ? [] : [randomTensor([12, 6], 4), integerTensor([2, 2], [3, 0, 1, 2])]),
      ...(select ? [integerTensor([3, 3], [0, -1, -1, 1, 2, -1, 0, 2, 3])] : []),
    ],
    attributes: { windowSize: 5, ratio, windowPageRows: 4, entryPageRows: 2 },
  };
}
