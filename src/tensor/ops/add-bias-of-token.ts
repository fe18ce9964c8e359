/**
 * A bias for each row, one for text and another for the tokens of images: y = scores + bias of the token
 *   scores [tokens, experts], bias [experts], imageBias [experts], tokenIds [tokens] (i32) -> y of the shape of scores
 * The router of V4.1 chooses experts with it; it takes no part in their weights.
 */
import { defineOp, integerTensor, randomTensor } from "../op.ts";
import { requireShape } from "../shape.ts";

export const addBiasOfToken = defineOp<{ readonly imageTokenId: number }>({
  name: "addBiasOfToken",
  infer([scores, bias, imageBias, tokenIds]) {
    requireShape("addBiasOfToken: bias", bias!.shape, [scores!.shape[1]!]);
    requireShape("addBiasOfToken: image bias", imageBias!.shape, [scores!.shape[1]!]);
    requireShape("addBiasOfToken: token ids", tokenIds!.shape, [scores!.shape[0]!]);
    return [scores!];
  },
  reference({ inputs: [scores, bias, imageBias, tokenIds], outputs: [y], inputShapes, attributes: { imageTokenId } }) {
    const [tokens, experts] = inputShapes[0]!;
    for (let t = 0; t < tokens!; t++) {
      const chosen = tokenIds![t] === imageTokenId ? imageBias! : bias!;
      for (let e = 0; e < experts!; e++) y![t * experts! + e] = scores![t * experts! + e]! + chosen[e]!;
    }
  },
  mayOverwrite: true,
  tolerance: 1e-7, // one rounding
  cases: () => [
    {
      name: "text and image",
      inputs: [randomTensor([3, 6], 1), randomTensor([6], 2), randomTensor([6], 3), integerTensor([3], [7, 4, 7])],
      attributes: { imageTokenId: 4 },
    },
  ],
});
