/**
 * The sublayer's output goes back into the residual streams, which mix (mHC, arXiv 2512.24880)
 *   x'_k = post_k * y + sum over i of mix[i][k] * x_i          the first index of mix is the old stream
 *   streams [tokens, n, hiddenSize], y [tokens, hiddenSize], post [tokens, n], mix [tokens, n, n] -> streams'
 */
import { ShapeError } from "../../errors.ts";
import { defineOp, randomTensor } from "../op.ts";
import { requireShape } from "../shape.ts";
import { mostStreams } from "./hyper-connection-coefficients.ts";

export const expandStreams = defineOp<Record<string, never>>({
  name: "expandStreams",
  infer([streams, y, post, mix]) {
    const [tokens, n, width] = streams!.shape;
    if (Number(n) > mostStreams)
      throw new ShapeError(`expandStreams: ${n} streams, ${mostStreams} are the most there may be`);
    requireShape("expandStreams: y", y!.shape, [tokens!, width!]);
    requireShape("expandStreams: post", post!.shape, [tokens!, n!]);
    requireShape("expandStreams: mix", mix!.shape, [tokens!, n!, n!]);
    return [streams!];
  },
  reference({ inputs: [streams, y, post, mix], outputs: [next], inputShapes: [shape] }) {
    const [tokens, n, width] = shape!;
    for (let t = 0; t < tokens!; t++) {
      const start = t * n! * width!;
      for (let c = 0; c < width!; c++) {
        const old = Array.from({ length: n! }, (_, i) => streams![start + i * width! + c]!);
        for (let k = 0; k < n!; k++) {
          let sum = post![t * n! + k]! * y![t * width! + c]!;
          for (let i = 0; i < n!; i++) sum += mix![(t * n! + i) * n! + k]! * old[i]!;
          next![start + k * width! + c] = sum;
        }
      }
    }
  },
  mayOverwrite: true,
  tolerance: 1e-6,
  cases: () => [
    {
      name: "usual",
      inputs: [
        randomTensor([3, 4, 10], 1),
        randomTensor([3, 10], 2),
        randomTensor([3, 4], 3),
        randomTensor([3, 4, 4], 4),
      ],
      attributes: {},
    },
    {
      name: "as many streams as there may be",
      inputs: [
        randomTensor([2, mostStreams, 18], 9),
        randomTensor([2, 18], 10),
        randomTensor([2, mostStreams], 11),
        randomTensor([2, mostStreams, mostStreams], 12),
      ],
      attributes: {},
    },
    {
      name: "no token",
      inputs: [
        randomTensor([0, 2, 4], 5),
        randomTensor([0, 4], 6),
        randomTensor([0, 2], 7),
        randomTensor([0, 2, 2], 8),
      ],
      attributes: {},
    },
  ],
});
