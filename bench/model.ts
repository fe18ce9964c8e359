/** Tokens a second of the embedded model, and the multiplications behind them against what this core can do in JavaScript. */
import { performance } from "node:perf_hooks";
import { loadModel } from "../src/engine/load-model.ts";
import { parameterCounts } from "../src/engine/memory-need.ts";
import { modelParameters } from "../src/model/parameters.ts";
import { medianSeconds, report } from "./measure.ts";

export async function benchModel(): Promise<void> {
  const started = performance.now();
  using model = await loadModel();
  report("load", `${(performance.now() - started).toFixed(0)} ms`);
  const ceiling = multiplicationsPerSecond();
  const { active } = parameterCounts(modelParameters(model.config), model.config);
  const show = (name: string, tokensPerSecond: number) => {
    const share = (tokensPerSecond * active) / ceiling;
    report(
      name,
      `${tokensPerSecond.toFixed(0)} tokens/s on ${model.device.kernels}; ${(100 * share).toFixed(0)} % of the core's ceiling`,
    );
  };
  const prompt = Array.from({ length: 512 }, (_, i) => 300 + ((i * 37) % 3000));
  show("prefill, 512 tokens", prompt.length / (await medianSeconds(() => model.logits(prompt, { last: true }), 3)));

  for (const context of [8, 512, 1500]) {
    using session = model.createSession();
    const base = Array.from({ length: context }, (_, i) => 300 + ((i * 53) % 3000));
    const answer = await session.complete(base, { temperature: 0, maxTokens: 129, ignoreEos: true });
    show(`decode behind ${context} tokens`, (answer.tokenIds.length - 1) / answer.seconds.decode);
  }
  report("ceiling", `${(ceiling / 1e9).toFixed(2)} G multiplications and additions a second in float64 JavaScript`);
}

/** Four dot products of vectors that stay in the first cache: what a scalar loop in JavaScript can do at best. */
function multiplicationsPerSecond(): number {
  const length = 1024;
  const [a, b] = [new Float64Array(length).fill(1.5), new Float64Array(length).fill(0.5)];
  const rounds = 100_000;
  let best = 0;
  for (let attempt = 0; attempt < 4; attempt++) {
    const started = performance.now();
    let [s0, s1, s2, s3, s4, s5, s6, s7] = [0, 0, 0, 0, 0, 0, 0, 0];
    for (let round = 0; round < rounds; round++) {
      for (let i = 0; i < length; i += 8) {
        s0 += a[i]! * b[i]!;
        s1 += a[i + 1]! * b[i + 1]!;
        s2 += a[i + 2]! * b[i + 2]!;
        s3 += a[i + 3]! * b[i + 3]!;
        s4 += a[i + 4]! * b[i + 4]!;
        s5 += a[i + 5]! * b[i + 5]!;
        s6 += a[i + 6]! * b[i + 6]!;
        s7 += a[i + 7]! * b[i + 7]!;
      }
    }
    const perSecond = (rounds * length) / ((performance.now() - started) / 1000);
    if (s0 + s1 + s2 + s3 + s4 + s5 + s6 + s7 > 0) best = Math.max(best, perSecond);
  }
  return best;
}
