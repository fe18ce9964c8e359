/** Product with a number that is known when the graph is recorded: y = factor * x, x of any shape. */
import { defineOp, randomTensor } from "../op.ts";

export const scale = defineOp<{ readonly factor: number }>({
  name: "scale",
  infer([x]) {
    return [x!];
  },
  reference({ inputs: [x], outputs: [y], attributes: { factor } }) {
    for (let i = 0; i < y!.length; i++) y![i] = factor * x![i]!;
  },
  mayOverwrite: true,
  tolerance: 1e-7,
  cases: () => [{ name: "usual", inputs: [randomTensor([2, 5], 1)], attributes: { factor: 0.25 } }],
});
