/**
 * The weights with which the head of the model collapses the streams: no spreading, no mixing (mHC, arXiv 2512.24880)
 *   m [tokens, n], base [n], scale [1] -> pre [tokens, n], pre = sigmoid(m * scale + base) + eps
 */
import { defineOp, randomTensor } from "../op.ts";
import { requireShape } from "../shape.ts";

export const hyperConnectionHead = defineOp<{ readonly eps: number }>({
  name: "hyperConnectionHead",
  infer([m, base, scale]) {
    requireShape("hyperConnectionHead: base", base!.shape, [m!.shape[1]!]);
    requireShape("hyperConnectionHead: scale", scale!.shape, [1]);
    return [m!];
  },
  reference({ inputs: [m, base, scale], outputs: [pre], attributes: { eps } }) {
    const n = base!.length;
    for (let i = 0; i < pre!.length; i++) pre![i] = 1 / (1 + Math.exp(-(m![i]! * scale![0]! + base![i % n]!))) + eps;
  },
  mayOverwrite: true,
  tolerance: 1e-6,
  cases: () => [
    {
      name: "usual",
      inputs: [randomTensor([3, 4], 1), randomTensor([4], 2), randomTensor([1], 3)],
      attributes: { eps: 1e-6 },
    },
  ],
});
