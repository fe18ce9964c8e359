/**
 * The Gaussian error linear unit, exact: y = x * (1 + erf(x / sqrt 2)) / 2, element by element
 * Hendrycks & Gimpel 2016 (arXiv 1606.08415); the approximation with tanh is off by up to 5e-4.
 */
import { defineOp, randomTensor } from "../op.ts";

export const gelu = defineOp<Record<string, never>>({
  name: "gelu",
  infer([x]) {
    return [x!];
  },
  reference({ inputs: [x], outputs: [y] }) {
    for (let i = 0; i < y!.length; i++) y![i] = 0.5 * x![i]! * (1 + erf(x![i]! / Math.SQRT2));
  },
  mayOverwrite: true,
  tolerance: 1e-6, // one rounding of the result
  cases: () => [
    { name: "usual", inputs: [randomTensor([3, 8], 1, 2)], attributes: {} },
    { name: "far out", inputs: [randomTensor([2, 40], 2, 12)], attributes: {} },
    { name: "no token", inputs: [randomTensor([0, 4], 3)], attributes: {} },
  ],
});

/**
 * The error function by its series with positive terms only, to about 1e-15: 2 / sqrt(pi) * e^(-x^2) * sum of
 * 2^n x^(2n+1) / (1 * 3 * ... * (2n+1)) (Abramowitz & Stegun 7.1.6). Beyond 6 it is 1 in float64.
 */
export function erf(x: number): number {
  if (Math.abs(x) > 6) return Math.sign(x);
  let term = x;
  let sum = x;
  for (let n = 1; Math.abs(term) > 1e-17 * Math.abs(sum); n++) {
    term *= (2 * x * x) / (2 * n + 1);
    sum += term;
  }
  return (2 / Math.sqrt(Math.PI)) * Math.exp(-x * x) * sum;
}
