/**
 * The product that most time goes into: y[t][r] = row r of W . x[t], W float32, x float64 (converted once), sums float64.
 * Each dot product is two sums, over even and over odd columns, added at the end: that order is the same in all bodies below,
 * so a token's result does not depend on how many others are in the step. Four chains of two sums fill the pipeline of a
 * scalar core: four rows at a time for one token, four tokens at a time for many (which also reads W a quarter as often).
 */
import type { Elements } from "../../../tensor/op.ts";

/** Rows of a larger matrix: y and x may be strided, W is contiguous. */
export interface MatrixProduct {
  readonly weight: Elements;
  /** Element of the first row. */
  readonly weightOffset: number;
  readonly rows: number;
  readonly columns: number;
  readonly x: Float64Array;
  readonly xOffset: number;
  readonly xStride: number;
  readonly y: Elements;
  readonly yOffset: number;
  readonly yStride: number;
  readonly tokens: number;
}

export function multiply(product: MatrixProduct): void {
  const { rows, tokens } = product;
  let t = 0;
  for (; t + 4 <= tokens; t += 4) for (let r = 0; r < rows; r++) fourTokens(product, r, t);
  for (; t < tokens; t++) {
    let r = 0;
    for (; r + 4 <= rows; r += 4) fourRows(product, r, t);
    for (; r < rows; r++) oneRow(product, r, t);
  }
}

function fourTokens(product: MatrixProduct, r: number, t: number): void {
  const { weight, columns, x, xStride, y, yStride } = product;
  const w = product.weightOffset + r * columns;
  const x0 = product.xOffset + t * xStride;
  const x1 = x0 + xStride;
  const x2 = x1 + xStride;
  const x3 = x2 + xStride;
  let even0 = 0;
  let even1 = 0;
  let even2 = 0;
  let even3 = 0;
  let odd0 = 0;
  let odd1 = 0;
  let odd2 = 0;
  let odd3 = 0;
  let i = 0;
  for (; i + 1 < columns; i += 2) {
    const a = weight[w + i]!;
    const b = weight[w + i + 1]!;
    even0 += a * x[x0 + i]!;
    odd0 += b * x[x0 + i + 1]!;
    even1 += a * x[x1 + i]!;
    odd1 += b * x[x1 + i + 1]!;
    even2 += a * x[x2 + i]!;
    odd2 += b * x[x2 + i + 1]!;
    even3 += a * x[x3 + i]!;
    odd3 += b * x[x3 + i + 1]!;
  }
  if (i < columns) {
    const a = weight[w + i]!;
    even0 += a * x[x0 + i]!;
    even1 += a * x[x1 + i]!;
    even2 += a * x[x2 + i]!;
    even3 += a * x[x3 + i]!;
  }
  const to = product.yOffset + t * yStride + r;
  y[to] = even0 + odd0;
  y[to + yStride] = even1 + odd1;
  y[to + 2 * yStride] = even2 + odd2;
  y[to + 3 * yStride] = even3 + odd3;
}

function fourRows(product: MatrixProduct, r: number, t: number): void {
  const { weight, columns, x, y } = product;
  const w0 = product.weightOffset + r * columns;
  const w1 = w0 + columns;
  const w2 = w1 + columns;
  const w3 = w2 + columns;
  const from = product.xOffset + t * product.xStride;
  let even0 = 0;
  let even1 = 0;
  let even2 = 0;
  let even3 = 0;
  let odd0 = 0;
  let odd1 = 0;
  let odd2 = 0;
  let odd3 = 0;
  let i = 0;
  for (; i + 1 < columns; i += 2) {
    const a = x[from + i]!;
    const b = x[from + i + 1]!;
    even0 += weight[w0 + i]! * a;
    odd0 += weight[w0 + i + 1]! * b;
    even1 += weight[w1 + i]! * a;
    odd1 += weight[w1 + i + 1]! * b;
    even2 += weight[w2 + i]! * a;
    odd2 += weight[w2 + i + 1]! * b;
    even3 += weight[w3 + i]! * a;
    odd3 += weight[w3 + i + 1]! * b;
  }
  if (i < columns) {
    const a = x[from + i]!;
    even0 += weight[w0 + i]! * a;
    even1 += weight[w1 + i]! * a;
    even2 += weight[w2 + i]! * a;
    even3 += weight[w3 + i]! * a;
  }
  const to = product.yOffset + t * product.yStride + r;
  y[to] = even0 + odd0;
  y[to + 1] = even1 + odd1;
  y[to + 2] = even2 + odd2;
  y[to + 3] = even3 + odd3;
}

function oneRow(product: MatrixProduct, r: number, t: number): void {
  const { weight, columns, x, y } = product;
  const w = product.weightOffset + r * columns;
  const from = product.xOffset + t * product.xStride;
  let even = 0;
  let odd = 0;
  let i = 0;
  for (; i + 1 < columns; i += 2) {
    even += weight[w + i]! * x[from + i]!;
    odd += weight[w + i + 1]! * x[from + i + 1]!;
  }
  if (i < columns) even += weight[w + i]! * x[from + i]!;
  y[product.yOffset + t * product.yStride + r] = even + odd;
}
