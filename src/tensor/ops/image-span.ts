/**
 * The rows that stand for an image in a text: its cells in reading order, between rows that say where it begins, where each
 * line ends and where it ends
 *   cells [cells, width], start [width], newline [width], end [width], layout [span] (i32) -> y [span, width]
 * layout holds numbers of cells, or -1 for start, -2 for newline, -3 for end.
 */
import { defineOp, integerTensor, randomTensor } from "../op.ts";
import { requireShape } from "../shape.ts";

export const imageSpan = defineOp<Record<string, never>>({
  name: "imageSpan",
  infer([cells, start, newline, end, layout]) {
    const width = cells!.shape[1]!;
    for (const [name, row] of [
      ["start", start],
      ["newline", newline],
      ["end", end],
    ] as const) {
      requireShape(`imageSpan: ${name}`, row!.shape, [width]);
    }
    return [{ dtype: "f32", shape: [layout!.shape[0]!, width] }];
  },
  reference({ inputs: [cells, start, newline, end, layout], outputs: [y], outputShapes: [shape] }) {
    const [span, width] = shape as [number, number];
    const marks = [start!, newline!, end!];
    for (let i = 0; i < span; i++) {
      const entry = layout![i]!;
      for (let c = 0; c < width; c++) {
        y![i * width + c] = entry < 0 ? marks[-1 - entry]![c]! : cells![entry * width + c]!;
      }
    }
  },
  tolerance: 0, // a copy
  cases: () => [
    {
      name: "two lines of two cells",
      inputs: [
        randomTensor([4, 6], 1),
        ...[2, 3, 4].map((seed) => randomTensor([6], seed)),
        integerTensor([8], [-1, 0, 1, -2, 2, 3, -2, -3]),
      ],
      attributes: {},
    },
    {
      name: "nothing",
      inputs: [randomTensor([1, 3], 5), ...[6, 7, 8].map((seed) => randomTensor([3], seed)), integerTensor([0], [])],
      attributes: {},
    },
  ],
});
