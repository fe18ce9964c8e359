/** The embedded model: tokens a second, alone and with a busy neighbour, and how long the caller's event loop ever waits. */
import { spawn } from "node:child_process";
import { monitorEventLoopDelay, performance } from "node:perf_hooks";
import { loadModel } from "../src/engine/load-model.ts";
import { parameterCounts } from "../src/engine/memory-need.ts";
import { modelParameters } from "../src/model/parameters.ts";
import { medianSeconds, report } from "./measure.ts";

export async function benchModel(): Promise<void> {
  const started = performance.now();
  using model = await loadModel();
  report("load", `${(performance.now() - started).toFixed(0)} ms`);
  const { active } = parameterCounts(modelParameters(model.config), model.config);
  const show = (name: string, tokensPerSecond: number) => {
    const perSecond = ((tokensPerSecond * active) / 1e9).toFixed(2);
    report(
      name,
      `${tokensPerSecond.toFixed(0)} tokens/s on ${model.device.kernels}; ${perSecond} G multiply-adds a second`,
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

  const decode = async () => {
    using session = model.createSession();
    const answer = await session.complete(prompt, { temperature: 0, maxTokens: 400, ignoreEos: true });
    return (answer.tokenIds.length - 1) / answer.seconds.decode;
  };
  const delay = monitorEventLoopDelay({ resolution: 1 });
  delay.enable();
  const quiet = await decode();
  delay.disable();
  report(
    "event loop, wait while generating",
    `99 % under ${(delay.percentile(99) / 1e6).toFixed(1)} ms, most ${(delay.max / 1e6).toFixed(1)} ms`,
  );
  const neighbour = spawn(process.execPath, ["-e", "for (;;);"]);
  const busy = await decode();
  neighbour.kill("SIGKILL");
  report(
    "decode beside a busy process",
    `${busy.toFixed(0)} tokens/s, ${((100 * busy) / quiet).toFixed(0)} % of ${quiet.toFixed(0)}`,
  );
}
