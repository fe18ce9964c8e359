/**
 * The router's score of each expert: sqrt(softplus(logit)), softplus(x) = ln(1 + e^x)
 *   logits [tokens, experts] -> scores of the same shape
 * DeepSeek-V4 report ("sqrtsoftplus"). Beyond 20 softplus(x) is x, as in the reference implementations.
 */
import { defineOp, randomTensor } from "../op.ts";

export const routerScores = defineOp<Record<string, never>>({
  name: "routerScores",
  infer([logits]) {
    return [logits!];
  },
  reference({ inputs: [logits], outputs: [scores] }) {
    for (let i = 0; i < scores!.length; i++) {
      const x = logits![i]!;
      scores![i] = Math.sqrt(x > 20 ? x : Math.log1p(Math.exp(x)));
    }
  },
  mayOverwrite: true,
  tolerance: 1e-6,
  cases: () => [
    { name: "usual", inputs: [randomTensor([4, 8], 1, 4)], attributes: {} },
    {
      name: "far ends",
      inputs: [{ dtype: "f32", shape: [1, 4], values: [-100, -20, 20.5, 1000] }],
      attributes: {},
    },
  ],
});
