/**
 * Rotary position embedding of the last channels, in neighbouring pairs (Su et al. 2021, arXiv 2104.09864, in the
 * interleaved form)
 *   x [rows, width] or [rows, heads, width], positions [rows] (i32) -> y of the same shape
 * Pair i of the last 2 * frequencies.length channels turns by position * frequencies[i]; `inverse` turns it back. Angles are
 * float64: at a million tokens a float32 angle is wrong by hundredths of a radian in the fastest pairs.
 */
import { defineOp, integerTensor, randomTensor } from "../op.ts";
import { requireShape } from "../shape.ts";

export interface RopeAttributes {
  /** Radians a token for each pair of channels. */
  readonly frequencies: readonly number[];
  readonly inverse: boolean;
}

export const rope = defineOp<RopeAttributes>({
  name: "rope",
  infer([x, positions]) {
    requireShape("rope: positions", positions!.shape, [x!.shape[0]!], "One position for each row of x");
    return [x!];
  },
  reference({ inputs: [x, positions], outputs: [y], inputShapes: [shape], attributes: { frequencies, inverse } }) {
    const width = shape!.at(-1)!;
    const heads = shape!.length === 3 ? shape![1]! : 1;
    const unrotated = width - 2 * frequencies.length;
    for (let row = 0; row < shape![0]!; row++) {
      const start = row * heads * width;
      if (y !== x) for (let i = start; i < start + heads * width; i++) y![i] = x![i]!;
      for (let pair = 0; pair < frequencies.length; pair++) {
        const angle = positions![row]! * frequencies[pair]! * (inverse ? -1 : 1);
        const cos = Math.cos(angle);
        const sin = Math.sin(angle);
        for (let h = 0; h < heads; h++) {
          const c = start + h * width + unrotated + 2 * pair;
          const even = x![c]!;
          const odd = x![c + 1]!;
          y![c] = even * cos - odd * sin;
          y![c + 1] = odd * cos + even * sin;
        }
      }
    }
  },
  mayOverwrite: true,
  tolerance: 1e-6,
  cases: () => {
    const frequencies = [1, 0.3, 0.01];
    return [
      {
        name: "heads",
        inputs: [randomTensor([3, 2, 8], 1), integerTensor([3], [0, 7, 1_000_000])],
        attributes: { frequencies, inverse: false },
      },
      {
        name: "rows, turned back",
        inputs: [randomTensor([2, 6], 2), integerTensor([2], [5, 6])],
        attributes: { frequencies, inverse: true },
      },
      {
        name: "no token",
        inputs: [randomTensor([0, 2, 6], 3), integerTensor([0], [])],
        attributes: { frequencies, inverse: false },
      },
    ];
  },
});
