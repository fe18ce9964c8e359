/**
 * What was looked up for a position goes into its residual streams, as far as each stream's gate opens (Engram, DeepSeek V4.1)
 *   streams [tokens, n, width], projected [tokens, (n + 1) * width]: a key for each stream, then the value,
 *   queryWeight, keyWeight [n, width], tokenIds [tokens] (i32) -> streams'
 *   dot_j = sum of x_j queryWeight_j keyWeight_j key_j / (sqrt(width) rms(x_j) rms(key_j))
 *   x'_j = x_j + sigmoid(sign(dot_j) sqrt(max(|dot_j|, 1e-6))) * value
 * The gate of a position of an image (`closedTokenId`, -1 for none) is shut. Sums are float64.
 */
import { defineOp, integerTensor, randomTensor } from "../op.ts";
import { requireShape } from "../shape.ts";

export interface EngramAttributes {
  readonly eps: number;
  readonly closedTokenId: number;
}

export const engramUpdate = defineOp<EngramAttributes>({
  name: "engramUpdate",
  infer([streams, projected, queryWeight, keyWeight, tokenIds]) {
    const [tokens, n, width] = streams!.shape as [string, number, number];
    requireShape("engramUpdate: projected", projected!.shape, [tokens, (n + 1) * width]);
    requireShape("engramUpdate: query weight", queryWeight!.shape, [n, width]);
    requireShape("engramUpdate: key weight", keyWeight!.shape, [n, width]);
    requireShape("engramUpdate: token ids", tokenIds!.shape, [tokens]);
    return [streams!];
  },
  reference({ inputs, outputs: [y], inputShapes: [shape], attributes: { eps, closedTokenId } }) {
    const [x, projected, queryWeight, keyWeight, tokenIds] = inputs;
    const [tokens, n, width] = shape as [number, number, number];
    for (let t = 0; t < tokens; t++) {
      const keys = t * (n + 1) * width;
      const value = keys + n * width;
      for (let j = 0; j < n; j++) {
        const row = (t * n + j) * width;
        let [dot, ofStream, ofKey] = [0, 0, 0];
        for (let c = 0; c < width; c++) {
          const key = projected![keys + j * width + c]!;
          dot += x![row + c]! * queryWeight![j * width + c]! * keyWeight![j * width + c]! * key;
          ofStream += x![row + c]! ** 2;
          ofKey += key ** 2;
        }
        dot /= Math.sqrt(width) * Math.sqrt(ofStream / width + eps) * Math.sqrt(ofKey / width + eps);
        const strength = (dot < 0 ? -1 : 1) * Math.sqrt(Math.max(Math.abs(dot), 1e-6));
        const gate = tokenIds![t] === closedTokenId ? 0 : 1 / (1 + Math.exp(-strength));
        for (let c = 0; c < width; c++) y![row + c] = x![row + c]! + gate * projected![value + c]!;
      }
    }
  },
  mayOverwrite: true,
  tolerance: 1e-6, // the gate is one rounding, its product with the value another
  cases: () => [
    { name: "usual", inputs: engramCase(3, 4, 20, [5, 6, 7]), attributes: { eps: 1e-20, closedTokenId: -1 } },
    { name: "an image", inputs: engramCase(2, 2, 37, [9, 4]), attributes: { eps: 1e-6, closedTokenId: 9 } },
    {
      name: "streams of nothing but zeros",
      inputs: [{ ...randomTensor([1, 2, 8], 1, 0) }, ...engramCase(1, 2, 8, [1]).slice(1)],
      attributes: { eps: 1e-20, closedTokenId: -1 },
    },
    { name: "no token", inputs: engramCase(0, 2, 8, []), attributes: { eps: 1e-20, closedTokenId: -1 } },
  ],
});

function engramCase(tokens: number, n: number, width: number, ids: number[]) {
  return [
    randomTensor([tokens, n, width], 1),
    randomTensor([tokens, (n + 1) * width], 2),
    randomTensor([n, width], 3),
    randomTensor([n, width], 4),
    integerTensor([tokens], ids),
  ];
}
