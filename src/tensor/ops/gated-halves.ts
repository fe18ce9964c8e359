/**
 * A gated activation whose gate and value come out of one product: y = silu(first half) * second half
 *   x [..., 2 * width] -> y [..., width]
 * Shazeer 2020 (arXiv 2002.05202), without the bounds that the text model's experts have (swiglu.ts).
 */
import { ShapeError } from "../../errors.ts";
import { defineOp, randomTensor } from "../op.ts";
import { gatedActivation } from "./swiglu.ts";

export const gatedHalves = defineOp<Record<string, never>>({
  name: "gatedHalves",
  infer([x]) {
    const width = x!.shape.at(-1);
    if (typeof width !== "number" || width % 2 !== 0) {
      throw new ShapeError(`gatedHalves: the last axis of x is ${width}, it needs an even number of channels`);
    }
    return [{ dtype: "f32", shape: [...x!.shape.slice(0, -1), width / 2] }];
  },
  reference({ inputs: [x], outputs: [y], outputShapes: [shape] }) {
    const width = shape!.at(-1)!;
    for (let i = 0; i < y!.length; i++) {
      const gate = Math.floor(i / width) * 2 * width + (i % width);
      y![i] = gatedActivation(x![gate]!, x![gate + width]!, 0);
    }
  },
  tolerance: 1e-6,
  cases: () => [
    { name: "usual", inputs: [randomTensor([3, 64], 1, 4)], attributes: {} },
    { name: "odd width", inputs: [randomTensor([2, 10], 2, 30)], attributes: {} },
    { name: "no token", inputs: [randomTensor([0, 8], 3)], attributes: {} },
  ],
});
