/**
 * Neighbouring rows joined into one, channel by channel (space to depth)
 *   x [tokens, width], members [cells, k] (i32, -1 for none) -> y [cells, width * k]
 * y[cell][channel * k + i] = x[members[cell][i]][channel], 0 where there is no member.
 */
import { ShapeError } from "../../errors.ts";
import { defineOp, integerTensor, randomTensor } from "../op.ts";

export const gatherCells = defineOp<Record<string, never>>({
  name: "gatherCells",
  infer([x, members]) {
    const [width, [cells, k]] = [x!.shape[1], members!.shape];
    if (typeof width !== "number" || typeof k !== "number") {
      throw new ShapeError("gatherCells: the width of x and the members of a cell are fixed numbers");
    }
    return [{ dtype: "f32", shape: [cells!, width * k] }];
  },
  reference({ inputs: [x, members], outputs: [y], inputShapes }) {
    const [[, width], [cells, k]] = inputShapes as [[number, number], [number, number]];
    for (let cell = 0; cell < cells; cell++) {
      for (let i = 0; i < k; i++) {
        const row = members![cell * k + i]!;
        for (let c = 0; c < width; c++) y![(cell * width + c) * k + i] = row < 0 ? 0 : x![row * width + c]!;
      }
    }
  },
  tolerance: 0, // a copy
  cases: () => [
    {
      name: "usual",
      inputs: [randomTensor([6, 5], 1), integerTensor([2, 4], [0, 1, 3, 4, 2, -1, 5, -1])],
      attributes: {},
    },
    { name: "one member", inputs: [randomTensor([2, 3], 2), integerTensor([2, 1], [1, 0])], attributes: {} },
    { name: "no cell", inputs: [randomTensor([1, 3], 3), integerTensor([0, 4], [])], attributes: {} },
  ],
});
