/**
 * The compressor of a layer: one entry out of the tokens of a group (DeepSeek-V4 report, compressed sparse attention)
 *   values, gates [poolRows, c * width] (caches, one row a token),
 *   sequences [n] (i32), entries [n] (i32): which entry of which sequence of the step closes,
 *   pages [sequences, tableWidth] (i32), positionBias [ratio, c * width] (optional) -> y [n, width], before norm and rope
 * For each channel by itself: a softmax over the candidates' gates + position bias, and with it the mean of their values.
 * Without overlap (c = 1) the candidates are the `ratio` tokens of the group. With overlap (c = 2) the first half of a
 * token's channels serves the NEXT entry and the second half its own: the candidates are the first halves of the group
 * before, then the second halves of this one; entry 0 has only its own.
 */
import { type CaseTensor, defineOp, integerTensor, randomTensor } from "../op.ts";
import { poolRow } from "../paging.ts";
import { requireShape } from "../shape.ts";

export interface CompressAttributes {
  /** Tokens of a group. */
  readonly ratio: number;
  readonly overlap: boolean;
  readonly pageRows: number;
}

export const compressEntries = defineOp<CompressAttributes>({
  name: "compressEntries",
  infer([values, gates, sequences, entries, , positionBias], { ratio, overlap }) {
    const channels = values!.shape[1] as number;
    requireShape("compressEntries: gates", gates!.shape, values!.shape);
    if (positionBias) requireShape("compressEntries: position bias", positionBias.shape, [ratio, channels]);
    requireShape("compressEntries: sequences", sequences!.shape, entries!.shape);
    return [{ dtype: "f32", shape: [entries!.shape[0]!, overlap ? channels / 2 : channels] }];
  },
  reference({ inputs, outputs: [y], inputShapes, attributes: { ratio, overlap, pageRows } }) {
    const [values, gates, sequences, entries, pages, positionBias] = inputs;
    const channels = inputShapes[0]![1]!;
    const tableWidth = inputShapes[4]![1]!;
    const width = overlap ? channels / 2 : channels;
    for (let e = 0; e < entries!.length; e++) {
      const group = entries![e]! * ratio;
      const first = overlap ? Math.max(0, group - ratio) : group;
      const rows = Array.from({ length: group + ratio - first }, (_, i) => first + i);
      const offsets = rows.map((row) => poolRow(pages!, tableWidth, pageRows, sequences![e]!, row) * channels);
      for (let c = 0; c < width; c++) {
        // A token of this group offers its second half when entries overlap, one of the group before its first half.
        const channel = rows.map((row) => c + (overlap && row >= group ? width : 0));
        const biasOf = (row: number, i: number) => positionBias?.[(row % ratio) * channels + channel[i]!] ?? 0;
        const logits = rows.map((row, i) => gates![offsets[i]! + channel[i]!]! + biasOf(row, i));
        const largest = Math.max(...logits);
        let sum = 0;
        let mean = 0;
        logits.forEach((logit, i) => {
          const weight = Math.exp(logit - largest);
          sum += weight;
          mean += weight * values![offsets[i]! + channel[i]!]!;
        });
        y![e * width + c] = mean / sum;
      }
    }
  },
  tolerance: 1e-6,
  cases: () => [
    { name: "ratio 4 with overlap, entries 0 and 2", ...compressCase(4, true, [0, 1], [2, 0]) },
    { name: "ratio 8 without overlap", ...compressCase(8, false, [1], [0]) },
    { name: "ratio 2 without position bias", ...withoutBias(compressCase(2, false, [0, 1, 1], [5, 0, 3])) },
    { name: "nothing closes", ...compressCase(4, true, [], []) },
  ],
});

/** Two sequences of up to 12 tokens in pages of 4 rows, shuffled in the pool. */
function compressCase(ratio: number, overlap: boolean, sequences: number[], entries: number[]) {
  const channels = overlap ? 10 : 5;
  const inputs: CaseTensor[] = [
    randomTensor([24, channels], 1),
    randomTensor([24, channels], 2),
    integerTensor([sequences.length], sequences),
    integerTensor([entries.length], entries),
    integerTensor([2, 3], [5, 0, 3, 1, 4, 2]),
    randomTensor([ratio, channels], 3),
  ];
  return { inputs, attributes: { ratio, overlap, pageRows: 4 } };
}

function withoutBias({ inputs, attributes }: ReturnType<typeof compressCase>) {
  return { inputs: inputs.slice(0, 5), attributes };
}
