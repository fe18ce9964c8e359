/**
 * Kernel of `compressEntries`: candidates outermost, channels innermost, with a running maximum, sum and mean a channel in
 * three rows of scratch (two passes: the maximum first, so that the sum is the one of the op).
 */
import type { Call } from "../../../tensor/op.ts";
import type { CompressAttributes } from "../../../tensor/ops/compress-entries.ts";
import { poolRow } from "../../../tensor/paging.ts";
import { float64Scratch } from "./scratch.ts";

const rows = float64Scratch();

export function compressEntriesKernel(call: Call<CompressAttributes>): void {
  const { ratio, overlap, pageRows } = call.attributes;
  const [values, gates, positionBias, sequences, entries, pages] = call.inputs;
  const channels = call.inputShapes[0]![1]!;
  const tableWidth = call.inputShapes[5]![1]!;
  const width = overlap ? channels / 2 : channels;
  const scratch = rows.take(3 * width);
  const largest = scratch.subarray(0, width);
  const sum = scratch.subarray(width, 2 * width);
  const mean = scratch.subarray(2 * width, 3 * width);
  for (let e = 0; e < entries!.length; e++) {
    const group = entries![e]! * ratio;
    const first = overlap ? Math.max(0, group - ratio) : group;
    largest.fill(Number.NEGATIVE_INFINITY);
    sum.fill(0);
    mean.fill(0);
    for (let pass = 0; pass < 2; pass++) {
      for (let row = first; row < group + ratio; row++) {
        const half = overlap && row >= group ? width : 0;
        const from = poolRow(pages!, tableWidth, pageRows, sequences![e]!, row) * channels + half;
        const bias = (row % ratio) * channels + half;
        for (let c = 0; c < width; c++) {
          const logit = gates![from + c]! + positionBias![bias + c]!;
          if (pass === 0) {
            if (logit > largest[c]!) largest[c] = logit;
          } else {
            const weight = Math.exp(logit - largest[c]!);
            sum[c] = sum[c]! + weight;
            mean[c] = mean[c]! + weight * values![from + c]!;
          }
        }
      }
    }
    for (let c = 0; c < width; c++) call.outputs[0]![e * width + c] = mean[c]! / sum[c]!;
  }
}
