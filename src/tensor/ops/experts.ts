/**
 * The routed experts of a layer: y = sum over the chosen of weight_e * down_e(swiglu(gate_e x, up_e x))
 *   x [tokens, hiddenSize], chosen [tokens, k] (i32, -1 = none), weights [tokens, k],
 *   gate, up [experts, width, hiddenSize], down [experts, hiddenSize, width] -> y [tokens, hiddenSize]
 * The sum runs in the order of `chosen`; a device may visit the experts in any order, but not add them in another.
 * With `roundsHidden` the weight is multiplied in before down, and what down multiplies is rounded as by roundBlocks "fp8".
 */
import { defineOp, integerTensor, randomTensor } from "../op.ts";
import { requireShape } from "../shape.ts";
import { roundBlocks } from "./round-blocks.ts";
import { gatedActivation } from "./swiglu.ts";

export interface ExpertsAttributes {
  readonly limit: number;
  readonly roundsHidden?: boolean;
}

export const experts = defineOp<ExpertsAttributes>({
  name: "experts",
  infer([x, chosen, weights, gate, up, down]) {
    const [count, width, hiddenSize] = gate!.shape;
    requireShape("experts: the last axis of x", [x!.shape[1]!], [hiddenSize!]);
    requireShape("experts: weights", weights!.shape, chosen!.shape);
    requireShape("experts: up", up!.shape, gate!.shape);
    requireShape("experts: down", down!.shape, [count!, hiddenSize!, width!]);
    return [x!];
  },
  reference({ inputs, outputs: [y], inputShapes, attributes: { limit, roundsHidden } }) {
    const [x, chosen, weights, gate, up, down] = inputs;
    const [, width, hiddenSize] = inputShapes[3]!;
    const [tokens, k] = inputShapes[1]!;
    const hidden = new Float64Array(width!);
    for (let t = 0; t < tokens!; t++) {
      const sum = new Float64Array(hiddenSize!);
      for (let slot = 0; slot < k!; slot++) {
        const expert = chosen![t * k! + slot]!;
        if (expert < 0) continue;
        for (let f = 0; f < width!; f++) {
          const row = (expert * width! + f) * hiddenSize!;
          let g = 0;
          let u = 0;
          for (let c = 0; c < hiddenSize!; c++) {
            g += gate![row + c]! * x![t * hiddenSize! + c]!;
            u += up![row + c]! * x![t * hiddenSize! + c]!;
          }
          hidden[f] = gatedActivation(g, u, limit);
        }
        const weight = weights![t * k! + slot]!;
        if (roundsHidden) roundHidden(hidden, weight);
        for (let c = 0; c < hiddenSize!; c++) {
          const row = (expert * hiddenSize! + c) * width!;
          let out = 0;
          for (let f = 0; f < width!; f++) out += down![row + f]! * hidden[f]!;
          sum[c] = sum[c]! + (roundsHidden ? 1 : weight) * out;
        }
      }
      for (let c = 0; c < hiddenSize!; c++) y![t * hiddenSize! + c] = sum[c]!;
    }
  },
  tolerance: 1e-5, // the hidden values between the two products may be float32
  cases: () => [
    { name: "usual", ...expertsCase(6, 2, [0, 3, 1, 2, 0, 1, 2, 3, 0, 2, 1, 3]) },
    { name: "one token", ...expertsCase(1, 2, [1, 3]) },
    { name: "nothing chosen", ...expertsCase(2, 2, [-1, -1, 0, -1]) },
    { name: "hidden values rounded", ...roundedCase(expertsCase(3, 2, [0, 3, 1, 2, 2, -1])) },
    { name: "no token", ...expertsCase(0, 2, []) },
  ],
});

function expertsCase(tokens: number, k: number, chosen: number[]) {
  return {
    inputs: [
      randomTensor([tokens, 10], 1),
      integerTensor([tokens, k], chosen),
      randomTensor([tokens, k], 2),
      randomTensor([4, 6, 10], 3),
      randomTensor([4, 6, 10], 4),
      randomTensor([4, 10, 6], 5),
    ],
    attributes: { limit: 2 },
  };
}

/** Weights of powers of two: a rounding of theirs cannot move a value across the border of two codes. */
function roundedCase({ inputs, attributes }: ReturnType<typeof expertsCase>) {
  const weights = { ...inputs[2]!, values: inputs[2]!.values.map((_, i) => 2 ** -(i % 3)) };
  return { inputs: inputs.with(2, weights), attributes: { ...attributes, roundsHidden: true } };
}

function roundHidden(hidden: Float64Array, weight: number): void {
  for (let f = 0; f < hidden.length; f++) hidden[f] = hidden[f]! * weight;
  const shapes = [[1, hidden.length]];
  const attributes = { format: "fp8" } as const;
  roundBlocks.reference({ inputs: [hidden], outputs: [hidden], inputShapes: shapes, outputShapes: shapes, attributes });
}
