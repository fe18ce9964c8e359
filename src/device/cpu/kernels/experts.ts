/**
 * Kernel of `experts`: each expert's weights are read once for all tokens that chose it. The products of a token are kept
 * apart by slot and added in the order of its slots, so that the sum does not depend on the other tokens of the step.
 */
import type { Call } from "../../../tensor/op.ts";
import { gatedActivation } from "../../../tensor/ops/swiglu.ts";
import { multiply } from "./matrix-product.ts";
import { float64Scratch } from "./scratch.ts";

const gathered = float64Scratch();
const hidden = float64Scratch();
const results = float64Scratch();
const bySlot = float64Scratch();

export function expertsKernel(call: Call<{ readonly limit: number }>): void {
  const [, chosen, weights] = call.inputs;
  const hiddenSize = call.inputShapes[0]![1]!;
  const count = call.inputShapes[3]![0]!;
  const [tokens, k] = call.inputShapes[1]!;
  const products = bySlot.take(tokens! * k! * hiddenSize);
  for (const [expert, slots] of slotsByExpert(chosen!, count).entries()) {
    if (slots.length > 0) oneExpert(call, expert, slots, products);
  }
  const y = call.outputs[0]!;
  for (let t = 0; t < tokens!; t++) {
    for (let c = 0; c < hiddenSize; c++) {
      let sum = 0;
      for (let slot = t * k!; slot < (t + 1) * k!; slot++) {
        if (chosen![slot]! >= 0) sum += weights![slot]! * products[slot * hiddenSize + c]!;
      }
      y[t * hiddenSize + c] = sum;
    }
  }
}

/** For each expert the places in `chosen` that name it. */
function slotsByExpert(chosen: ArrayLike<number>, count: number): number[][] {
  const slots = Array.from({ length: count }, (): number[] => []);
  for (let slot = 0; slot < chosen.length; slot++) if (chosen[slot]! >= 0) slots[chosen[slot]!]!.push(slot);
  return slots;
}

/** down(swiglu(gate x, up x)) of one expert for all its slots, into products[slot]. */
function oneExpert(
  call: Call<{ readonly limit: number }>,
  expert: number,
  slots: number[],
  products: Float64Array,
): void {
  const [x, , , gate, up, down] = call.inputs;
  const [, width, hiddenSize] = call.inputShapes[3]!;
  const k = call.inputShapes[1]![1]!;
  const tokens = slots.length;
  const input = gathered.take(tokens * hiddenSize!);
  slots.forEach((slot, i) => {
    const from = Math.floor(slot / k) * hiddenSize!;
    for (let c = 0; c < hiddenSize!; c++) input[i * hiddenSize! + c] = x![from + c]!;
  });
  // Gate and up side by side: [tokens, 2 * width]; the activation then overwrites the gate half.
  const inner = hidden.take(tokens * 2 * width!);
  const shared = { weightOffset: expert * width! * hiddenSize!, rows: width!, columns: hiddenSize!, tokens };
  const layout = { x: input, xOffset: 0, xStride: hiddenSize!, y: inner, yStride: 2 * width! };
  multiply({ ...shared, ...layout, weight: gate!, yOffset: 0 });
  multiply({ ...shared, ...layout, weight: up!, yOffset: width! });
  for (let i = 0; i < tokens; i++) {
    const row = i * 2 * width!;
    for (let f = row; f < row + width!; f++)
      inner[f] = gatedActivation(inner[f]!, inner[f + width!]!, call.attributes.limit);
  }
  const out = results.take(tokens * hiddenSize!);
  multiply({
    weight: down!,
    weightOffset: expert * width! * hiddenSize!,
    rows: hiddenSize!,
    columns: width!,
    x: inner,
    xOffset: 0,
    xStride: 2 * width!,
    y: out,
    yOffset: 0,
    yStride: hiddenSize!,
    tokens,
  });
  slots.forEach((slot, i) => {
    products.set(out.subarray(i * hiddenSize!, (i + 1) * hiddenSize!), slot * hiddenSize!);
  });
}
