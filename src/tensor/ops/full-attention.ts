/**
 * Attention of all tokens to all tokens, without a mask: softmax(q k / sqrt(headDim)) v (Vaswani et al. 2017, arXiv 1706.03762)
 *   queries, keys and values as one product gives them [tokens, 3, heads, headDim] -> [tokens, heads, headDim]
 * The sum runs over the keys in their order, in blocks of 128 on the kernels. Tokens are always computed together.
 */
import { ShapeError } from "../../errors.ts";
import { defineOp, randomTensor } from "../op.ts";
import { formatShape } from "../shape.ts";

export const fullAttention = defineOp<Record<string, never>>({
  name: "fullAttention",
  infer([qkv]) {
    const [tokens, three, heads, headDim] = qkv!.shape;
    if (three !== 3 || headDim === undefined) {
      throw new ShapeError(`fullAttention: the input is ${formatShape(qkv!.shape)}, not [tokens, 3, heads, headDim]`);
    }
    return [{ dtype: "f32", shape: [tokens!, heads!, headDim] }];
  },
  reference({ inputs: [qkv], outputs: [output], inputShapes: [shape] }) {
    const [tokens, , heads, headDim] = shape as [number, number, number, number];
    const row = (t: number, part: number, h: number) => ((t * 3 + part) * heads + h) * headDim;
    const logits = new Float64Array(tokens);
    for (let t = 0; t < tokens; t++) {
      for (let h = 0; h < heads; h++) {
        let largest = Number.NEGATIVE_INFINITY;
        for (let key = 0; key < tokens; key++) {
          let product = 0;
          for (let c = 0; c < headDim; c++) product += qkv![row(t, 0, h) + c]! * qkv![row(key, 1, h) + c]!;
          logits[key] = product / Math.sqrt(headDim);
          largest = Math.max(largest, logits[key]!);
        }
        const weights = logits.map((logit) => Math.exp(logit - largest));
        const total = weights.reduce((a, b) => a + b, 0);
        for (let c = 0; c < headDim; c++) {
          let sum = 0;
          for (let key = 0; key < tokens; key++) sum += weights[key]! * qkv![row(key, 2, h) + c]!;
          output![(t * heads + h) * headDim + c] = sum / total;
        }
      }
    }
  },
  tolerance: 5e-6, // kernels keep logits in float32: one of 30 is off by 2e-6, and its weight with it
  cases: () => [
    { name: "one head", inputs: [randomTensor([5, 3, 1, 8], 1)], attributes: {} },
    { name: "many keys", inputs: [randomTensor([150, 3, 2, 16], 2, 2)], attributes: {} },
    { name: "odd width", inputs: [randomTensor([37, 3, 3, 6], 3)], attributes: {} },
    { name: "one token", inputs: [randomTensor([1, 3, 2, 64], 4)], attributes: {} },
    { name: "no token", inputs: [randomTensor([0, 3, 2, 4], 5)], attributes: {} },
    { name: "whole vectors", inputs: [randomTensor([33, 3, 2, 32], 7)], attributes: {} },
    { name: "several blocks of queries", inputs: [randomTensor([530, 3, 1, 64], 8)], attributes: {} },
    { name: "wide", inputs: [randomTensor([145, 3, 1, 128], 9)], attributes: {} },
    { name: "sharp", inputs: [randomTensor([40, 3, 1, 4], 6, 30)], attributes: {} },
  ],
});
