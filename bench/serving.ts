/**
 * The batch engine on the embedded model: what 64 requests at the same time get beside one, how long the event loop waits, what
 * drafting gains and costs, and how fast cancelled requests give their memory back.
 */
import { monitorEventLoopDelay, performance } from "node:perf_hooks";
import { BatchEngine } from "../src/engine/batching/batch-engine.ts";
import type { EngineEvent, EngineRequest, EngineUsage } from "../src/engine/batching/engine-port.ts";
import { MemoryCache } from "../src/engine/batching/memory-cache.ts";
import { Drafting } from "../src/engine/drafting/drafting.ts";
import { loadModel } from "../src/engine/load-model.ts";
import type { Model } from "../src/engine/model.ts";
import { report } from "./measure.ts";

export async function benchServing(): Promise<void> {
  using model = await loadModel();
  await benchThroughput(model);
  await benchDrafting(model);
  await benchCancels(model);
}

function engineOf(model: Model, drafting: "off" | "ngram" = "off"): BatchEngine {
  return new BatchEngine(model, new MemoryCache(model.runner), { drafting: new Drafting(drafting) });
}

function requestOf(id: string, tokenIds: readonly number[], rest: Partial<EngineRequest> = {}): EngineRequest {
  const sampling = { temperature: 0, seed: 1 };
  const common = { generated: [], stopTokenIds: [], key: id, priority: 1, namespace: "bench" };
  return { id, tokenIds, sampling, maxTokens: 128, ...common, ...rest };
}

function ask(
  engine: BatchEngine,
  request: EngineRequest,
  onEvent?: (event: EngineEvent) => void,
): Promise<EngineUsage> {
  return new Promise((resolve, reject) => {
    engine.submit(request, (event) => {
      onEvent?.(event);
      if (event.type === "end") resolve(event.usage);
      if (event.type === "error") reject(new Error(event.error.message));
    });
  });
}

/** Tokens of answers a second of `count` requests at the same time. */
async function tokensPerSecond(engine: BatchEngine, count: number, maxTokens: number): Promise<number> {
  const started = performance.now();
  const usages = await Promise.all(
    Array.from({ length: count }, (_, i) => ask(engine, requestOf(`r${i}`, randomPrompt(32, i), { maxTokens }))),
  );
  const tokens = usages.reduce((sum, { generatedTokens }) => sum + generatedTokens, 0);
  return (1000 * tokens) / (performance.now() - started);
}

async function benchThroughput(model: Model): Promise<void> {
  const engine = engineOf(model);
  await tokensPerSecond(engine, 64, 16);
  const one = await tokensPerSecond(engine, 1, 256);
  report("one request", `${one.toFixed(0)} tokens/s`);
  for (const count of [8, 64]) {
    const delay = monitorEventLoopDelay({ resolution: 1 });
    delay.enable();
    const all = await tokensPerSecond(engine, count, 128);
    delay.disable();
    const wait = `event loop waits ${ms(delay.percentile(99))} ms (99 %), ${ms(delay.max)} ms at most`;
    report(`${count} requests at once`, `${all.toFixed(0)} tokens/s, ${(all / one).toFixed(1)} times one; ${wait}`);
  }
}

async function benchDrafting(model: Model): Promise<void> {
  const sentence = model.encode("The cat sat on the mat and the dog lay by the door. ");
  const repetitive = Array.from({ length: 12 }, () => sentence).flat();
  const cases: [string, readonly number[], number][] = [
    ["a prompt that repeats", repetitive, 0],
    ["a random prompt, greedy", randomPrompt(200, 5), 0],
    ["a random prompt, temperature 1", randomPrompt(200, 5), 1],
  ];
  for (const [name, prompt, temperature] of cases) {
    const request = requestOf("x", prompt, { maxTokens: 400, sampling: { temperature, seed: 3 } });
    const engines = { off: engineOf(model, "off"), ngram: engineOf(model, "ngram") };
    const runs: Record<keyof typeof engines, EngineUsage[]> = { off: [], ngram: [] };
    // In turns: what else the machine does meets both alike.
    for (let run = 0; run < 7; run++)
      for (const drafting of ["off", "ngram"] as const) runs[drafting].push(await ask(engines[drafting], request));
    const fastest = (usages: EngineUsage[]) => usages.sort((a, b) => a.seconds.decode - b.seconds.decode)[0]!;
    const [plain, drafted] = [fastest(runs.off), fastest(runs.ngram)];
    const gain = plain.seconds.decode / drafted.seconds.decode;
    const { acceptedTokens, draftedTokens } = drafted;
    report(
      `drafting, ${name}`,
      `${gain.toFixed(2)} times plain decoding; ${acceptedTokens} of ${draftedTokens} drafted tokens right`,
    );
  }
}

async function benchCancels(model: Model): Promise<void> {
  const engine = engineOf(model);
  const idle = await firstTokenMs(engine, "idle");
  const running = Array.from({ length: 2000 }, (_, i) =>
    ask(engine, requestOf(`r${i}`, randomPrompt(64 + (i % 400), i), { maxTokens: 1000 })),
  );
  await ask(engine, requestOf("among them", randomPrompt(10, 1), { maxTokens: 4, priority: 0 }));
  const started = performance.now();
  for (let i = 0; i < 2000; i++) engine.cancel(`r${i}`);
  await Promise.all(running);
  const freed = performance.now() - started;
  const pages = model.runner.cache.layouts.reduce((sum, { pool }) => sum + pool.used, 0);
  const next = await firstTokenMs(engine, "next");
  const after = `next first token ${next.toFixed(1)} ms, ${idle.toFixed(1)} ms when idle`;
  report("2,000 requests cancelled", `all ended in ${freed.toFixed(0)} ms, ${pages} pages left; ${after}`);
}

async function firstTokenMs(engine: BatchEngine, id: string): Promise<number> {
  const started = performance.now();
  let first = 0;
  await ask(engine, requestOf(id, randomPrompt(100, 3), { maxTokens: 2 }), ({ type }) => {
    if (type === "tokens" && first === 0) first = performance.now() - started;
  });
  return first;
}

function randomPrompt(length: number, seed: number): number[] {
  let state = seed + 1;
  return Array.from({ length }, () => {
    state = (Math.imul(state, 1664525) + 1013904223) >>> 0;
    return 300 + (state % 3500);
  });
}

function ms(nanoseconds: number): string {
  return (nanoseconds / 1e6).toFixed(1);
}
