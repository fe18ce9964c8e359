/**
 * From the projected streams of a token to the three sets of coefficients of a manifold-constrained hyper-connection
 * (mHC, arXiv 2512.24880): how the streams are collapsed for the sublayer, how its output is spread, how they mix.
 *   m [tokens, 2n + n*n], base [2n + n*n], scale [3] -> pre [tokens, n], post [tokens, n], mix [tokens, n, n]
 * mix[i][j] is the weight of old stream i in new stream j. It is made doubly stochastic by Sinkhorn's iteration: a softmax
 * over j, a division of columns, then pairs (rows, columns); the last step is always columns. `pre` and each divisor get
 * + eps, `post` does not.
 */
import { ShapeError } from "../../errors.ts";
import { defineOp, randomTensor } from "../op.ts";
import { requireShape } from "../shape.ts";

/** Residual streams that a model may have; the kernels have room for the coefficients of so many. Published models have 4. */
export const mostStreams = 16;

export interface HyperConnectionAttributes {
  /** n, the number of residual streams; at most `mostStreams`. */
  readonly streams: number;
  readonly iterations: number;
  readonly eps: number;
}

export const hyperConnectionCoefficients = defineOp<HyperConnectionAttributes>({
  name: "hyperConnectionCoefficients",
  infer([m, base, scale], { streams: n }) {
    const tokens = m!.shape[0]!;
    if (n > mostStreams)
      throw new ShapeError(`hyperConnectionCoefficients: ${n} streams, ${mostStreams} are the most there may be`);
    requireShape("hyperConnectionCoefficients: m", m!.shape, [tokens, (2 + n) * n]);
    requireShape("hyperConnectionCoefficients: base", base!.shape, [(2 + n) * n]);
    requireShape("hyperConnectionCoefficients: scale", scale!.shape, [3]);
    return [
      { dtype: "f32", shape: [tokens, n] },
      { dtype: "f32", shape: [tokens, n] },
      { dtype: "f32", shape: [tokens, n, n] },
    ];
  },
  reference({ inputs: [m, base, scale], outputs: [pre, post, mix], inputShapes, attributes }) {
    const { streams: n, iterations, eps } = attributes;
    const width = (2 + n) * n;
    const c = new Float64Array(n * n);
    for (let t = 0; t < inputShapes[0]![0]!; t++) {
      const value = (i: number, s: number) => m![t * width + i]! * scale![s]! + base![i]!;
      for (let j = 0; j < n; j++) {
        pre![t * n + j] = 1 / (1 + Math.exp(-value(j, 0))) + eps;
        post![t * n + j] = 2 / (1 + Math.exp(-value(n + j, 1)));
      }
      for (let i = 0; i < n * n; i++) c[i] = value(2 * n + i, 2);
      softmaxRows(c, n, eps);
      divideColumns(c, n, eps);
      for (let iteration = 1; iteration < iterations; iteration++) {
        divideRows(c, n, eps);
        divideColumns(c, n, eps);
      }
      for (let i = 0; i < n * n; i++) mix![t * n * n + i] = c[i]!;
    }
  },
  tolerance: 1e-6, // a chain of about 40 divisions in float64, one rounding
  cases: () => [
    {
      name: "usual",
      inputs: [randomTensor([3, 24], 1), randomTensor([24], 2), randomTensor([3], 3)],
      attributes: { streams: 4, iterations: 20, eps: 1e-6 },
    },
    {
      name: "two streams, one iteration, large eps",
      inputs: [randomTensor([2, 8], 4, 3), randomTensor([8], 5), randomTensor([3], 6)],
      attributes: { streams: 2, iterations: 1, eps: 0.01 },
    },
    {
      name: "as many streams as there may be",
      inputs: [
        randomTensor([2, (2 + mostStreams) * mostStreams], 10),
        randomTensor([(2 + mostStreams) * mostStreams], 11),
        randomTensor([3], 12),
      ],
      attributes: { streams: mostStreams, iterations: 20, eps: 1e-6 },
    },
    {
      name: "no token",
      inputs: [randomTensor([0, 24], 7), randomTensor([24], 8), randomTensor([3], 9)],
      attributes: { streams: 4, iterations: 20, eps: 1e-6 },
    },
  ],
});

function softmaxRows(c: Float64Array, n: number, eps: number): void {
  for (let row = 0; row < n * n; row += n) {
    let largest = Number.NEGATIVE_INFINITY;
    for (let j = row; j < row + n; j++) largest = Math.max(largest, c[j]!);
    let sum = 0;
    for (let j = row; j < row + n; j++) {
      c[j] = Math.exp(c[j]! - largest);
      sum += c[j]!;
    }
    for (let j = row; j < row + n; j++) c[j] = c[j]! / sum + eps;
  }
}

function divideRows(c: Float64Array, n: number, eps: number): void {
  for (let row = 0; row < n * n; row += n) {
    let sum = eps;
    for (let j = row; j < row + n; j++) sum += c[j]!;
    for (let j = row; j < row + n; j++) c[j] = c[j]! / sum;
  }
}

function divideColumns(c: Float64Array, n: number, eps: number): void {
  for (let j = 0; j < n; j++) {
    let sum = eps;
    for (let i = j; i < n * n; i += n) sum += c[i]!;
    for (let i = j; i < n * n; i += n) c[i] = c[i]! / sum;
  }
}
