/**
 * The gated activation of an expert, bounded: silu(min(gate, limit)) * clamp(up, -limit, limit), silu(x) = x / (1 + e^-x)
 *   gate, up [..., width] -> y of the same shape
 * Shazeer 2020 (arXiv 2002.05202); the gate is bounded above only, before silu. limit 0 means no bound.
 */
import { defineOp, randomTensor } from "../op.ts";
import { requireShape } from "../shape.ts";

export const swiglu = defineOp<{ readonly limit: number }>({
  name: "swiglu",
  infer([gate, up]) {
    requireShape("swiglu: up", up!.shape, gate!.shape);
    return [gate!];
  },
  reference({ inputs: [gate, up], outputs: [y], attributes: { limit } }) {
    for (let i = 0; i < y!.length; i++) y![i] = gatedActivation(gate![i]!, up![i]!, limit);
  },
  mayOverwrite: true,
  tolerance: 1e-6,
  cases: () => [
    { name: "bounded", inputs: [randomTensor([3, 8], 1, 4), randomTensor([3, 8], 2, 4)], attributes: { limit: 2 } },
    { name: "not bounded", inputs: [randomTensor([3, 8], 3, 30), randomTensor([3, 8], 4)], attributes: { limit: 0 } },
    ...[0, 2].map((limit) => ({
      name: `no numbers, limit ${limit}`,
      inputs: [strangeGates, strangeUps],
      attributes: { limit },
    })),
  ],
});

/** Where something is NaN the result is, bounded or not. */
const strangeGates = {
  dtype: "f32" as const,
  shape: [1, 5],
  values: [Number.NaN, 1, Number.NaN, Number.POSITIVE_INFINITY, 3],
};
const strangeUps = {
  dtype: "f32" as const,
  shape: [1, 5],
  values: [1, Number.NaN, Number.NaN, 1, Number.NEGATIVE_INFINITY],
};

export function gatedActivation(gate: number, up: number, limit: number): number {
  const g = limit > 0 && gate > limit ? limit : gate;
  const u = limit > 0 ? Math.min(Math.max(up, -limit), limit) : up;
  return (g / (1 + Math.exp(-g))) * u;
}
