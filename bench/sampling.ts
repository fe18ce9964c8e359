/** Microseconds to choose one token out of the 129,280 logits of DeepSeek V4. */
import { Sampler } from "../src/engine/sampling/sampler.ts";
import type { SamplingOptions } from "../src/engine/sampling/sampling-options.ts";
import { TokenHistory } from "../src/engine/sampling/token-history.ts";
import { medianSeconds, report } from "./measure.ts";

export async function benchSampling(): Promise<void> {
  const logits = Float32Array.from({ length: 129_280 }, (_, i) => 8 * Math.sin(i * 12.9898) ** 7);
  const settings: Readonly<Record<string, SamplingOptions>> = {
    greedy: { temperature: 0 },
    "temperature 1": {},
    "top-k 40": { topK: 40 },
    "top-p 0.95": { topP: 0.95 },
    "min-p 0.05": { minP: 0.05 },
    "penalties, top-k 40, top-p 0.95": { topK: 40, topP: 0.95, repetitionPenalty: 1.1, presencePenalty: 0.5 },
  };
  for (const [name, options] of Object.entries(settings)) {
    const sampler = new Sampler({ ...options, seed: 1 });
    const history = new TokenHistory(Array.from({ length: 1000 }, (_, i) => i * 7));
    const rounds = 20;
    const seconds = await medianSeconds(() => {
      for (let i = 0; i < rounds; i++) history.push(sampler.sample(logits, history));
    });
    report(name, `${((seconds / rounds) * 1e6).toFixed(0)} us a token`);
  }
}
