/** Kernels of `linear` and `groupedLinear`: see the ops for shapes. */
import type { Call } from "../../../tensor/op.ts";
import { multiply } from "./matrix-product.ts";
import { float64Scratch } from "./scratch.ts";

const input = float64Scratch();

export function linearKernel({ inputs: [x, weight], outputs: [y], inputShapes }: Call<unknown>): void {
  const [rows, columns] = inputShapes[1]!;
  multiply({
    weight: weight!,
    weightOffset: 0,
    rows: rows!,
    columns: columns!,
    x: input.convert(x!),
    xOffset: 0,
    xStride: columns!,
    y: y!,
    yOffset: 0,
    yStride: rows!,
    tokens: y!.length / rows!,
  });
}

export function groupedLinearKernel({ inputs: [x, weight], outputs: [y], inputShapes }: Call<unknown>): void {
  const [tokens, groups, columns] = inputShapes[0]!;
  const rows = inputShapes[1]![0]! / groups!;
  const converted = input.convert(x!);
  for (let g = 0; g < groups!; g++) {
    multiply({
      weight: weight!,
      weightOffset: g * rows * columns!,
      rows,
      columns: columns!,
      x: converted,
      xOffset: g * columns!,
      xStride: groups! * columns!,
      y: y!,
      yOffset: g * rows,
      yStride: groups! * rows,
      tokens: tokens!,
    });
  }
}
