/**
 * How much each chosen expert counts: its score, divided by the sum over the chosen, times a constant
 *   scores [tokens, experts], chosen [tokens, k] (i32, -1 = none) -> weights [tokens, k]
 * The correction bias that helped choosing takes no part (DeepSeek-V3 report, auxiliary-loss-free balancing). A score that is no
 * finite number is never chosen; it makes all weights of its token NaN, so that a damaged router is not passed over in silence.
 */
import { defineOp, integerTensor, randomTensor } from "../op.ts";
import { requireShape } from "../shape.ts";

export interface RoutingAttributes {
  readonly normalize: boolean;
  readonly factor: number;
}

export const routingWeights = defineOp<RoutingAttributes>({
  name: "routingWeights",
  infer([scores, chosen]) {
    requireShape("routingWeights: chosen", [chosen!.shape[0]!], [scores!.shape[0]!]);
    return [{ dtype: "f32", shape: chosen!.shape }];
  },
  reference({ inputs: [scores, chosen], outputs: [weights], inputShapes, attributes: { normalize, factor } }) {
    const [tokens, experts] = inputShapes[0]!;
    const k = inputShapes[1]![1]!;
    for (let t = 0; t < tokens!; t++) {
      const scoreOf = (slot: number) => {
        const expert = chosen![t * k + slot]!;
        return expert < 0 ? 0 : scores![t * experts! + expert]!;
      };
      const isDamaged = scores!.subarray(t * experts!, (t + 1) * experts!).some((score) => !Number.isFinite(score));
      let sum = isDamaged ? Number.NaN : 1e-20;
      for (let slot = 0; slot < k; slot++) sum += scoreOf(slot);
      const divisor = normalize || isDamaged ? sum : 1;
      for (let slot = 0; slot < k; slot++) weights![t * k + slot] = (scoreOf(slot) / divisor) * factor;
    }
  },
  tolerance: 1e-6,
  cases: () => {
    const scores = { ...randomTensor([2, 4], 1), values: [0.3, 0.1, 2, 0.7, 0.2, 0.9, 0.4, 0.6].map(Math.fround) };
    const inputs = [scores, integerTensor([2, 2], [1, 3, 0, -1])];
    return [
      { name: "normalised", inputs, attributes: { normalize: true, factor: 1.5 } },
      { name: "as they are", inputs, attributes: { normalize: false, factor: 2.5 } },
      ...[true, false].map((normalize) => ({
        name: `a score that is no number, ${normalize ? "normalised" : "as they are"}`,
        inputs: [
          { ...scores, values: [0.5, Number.NaN, 2, 0.7, 0.2, 0.9, 0.4, 0.6] },
          integerTensor([2, 2], [0, 2, 0, -1]),
        ],
        attributes: { normalize, factor: 1.5 },
      })),
    ];
  },
});
