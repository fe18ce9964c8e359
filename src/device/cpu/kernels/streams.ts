/** Kernels of `collapseStreams` and `expandStreams`: the loops of the ops with the channel innermost, so that rows stream by. */
import type { Call } from "../../../tensor/op.ts";
import { float64Scratch } from "./scratch.ts";

const sums = float64Scratch();

export function collapseStreamsKernel({ inputs: [streams, weights], outputs: [u], inputShapes }: Call<unknown>): void {
  const [tokens, n, width] = inputShapes[0]!;
  const sum = sums.take(width!);
  for (let t = 0; t < tokens!; t++) {
    sum.fill(0, 0, width!);
    for (let j = 0; j < n!; j++) addScaled(sum, streams!, (t * n! + j) * width!, width!, weights![t * n! + j]!);
    for (let c = 0; c < width!; c++) u![t * width! + c] = sum[c]!;
  }
}

export function expandStreamsKernel({ inputs, outputs: [next], inputShapes }: Call<unknown>): void {
  const [streams, y, post, mix] = inputs;
  const [tokens, n, width] = inputShapes[0]!;
  const sum = sums.take(width!);
  for (let t = 0; t < tokens!; t++) {
    for (let k = 0; k < n!; k++) {
      sum.fill(0, 0, width!);
      addScaled(sum, y!, t * width!, width!, post![t * n! + k]!);
      for (let i = 0; i < n!; i++) {
        addScaled(sum, streams!, (t * n! + i) * width!, width!, mix![(t * n! + i) * n! + k]!);
      }
      const to = (t * n! + k) * width!;
      for (let c = 0; c < width!; c++) next![to + c] = sum[c]!;
    }
  }
}

function addScaled(sum: Float64Array, x: ArrayLike<number>, from: number, width: number, factor: number): void {
  for (let c = 0; c < width; c++) sum[c] = sum[c]! + factor * x[from + c]!;
}
