import assert from "node:assert/strict";
import { describe, test } from "node:test";
import fc from "fast-check";
import { FairQueue } from "../../src/engine/batching/fair-queue.ts";
import { commonTokens, prefixBlocks } from "../../src/engine/batching/prefix-blocks.ts";
import { Scheduler } from "../../src/engine/batching/scheduler.ts";
import { StepBudget } from "../../src/engine/batching/step-budget.ts";
import { replayTrace } from "../../src/engine/batching/trace.ts";
import { SimulatedEngine, type SimulatedRequest, simulatedOptions } from "./simulated-engine.ts";

/** A prompt whose first `shared` tokens are those of every other, the rest its own. */
const prompt = (length: number, own: number, shared = 0) =>
  Array.from({ length }, (_, i) => (i < shared ? i : 1000 * (own + 1) + i));

const anyRequests = fc
  .array(
    fc.record({
      key: fc.constantFrom("a", "b", "c", "d"),
      priority: fc.nat(3),
      atMs: fc.nat(500),
      length: fc.oneof(fc.integer({ min: 1, max: 300 }), fc.integer({ min: 1, max: 5000 })),
      shared: fc.constantFrom(0, 100, 128, 700),
      answer: fc.integer({ min: 1, max: 60 }),
      cached: fc.constantFrom(0, 0, 128, 640),
      cancelAtStep: fc.option(fc.nat(200), { nil: undefined }),
      wantsAllLogits: fc.boolean(),
      draft: fc.constantFrom(0, 0, 1, 4, 40),
    }),
    { minLength: 1, maxLength: 40 },
  )
  .map((requests) =>
    requests.map(
      ({ length, shared, cancelAtStep, ...rest }, i): SimulatedRequest => ({
        ...rest,
        id: `r${i}`,
        prompt: prompt(length, i, shared),
        ...(cancelAtStep === undefined ? {} : { cancelAtStep }),
      }),
    ),
  );

const anyOptions = fc.record({
  maxStepTokens: fc.constantFrom(128, 256, 512),
  maxRunning: fc.constantFrom(1, 3, 16, 64),
  maxDraftTokens: fc.constantFrom(0, 5, 32),
  cacheBytes: fc.constantFrom(20_000, 100_000, 10_000_000),
  reservedShare: fc.constantFrom(0, 0.5, 1),
  sharesPrefixes: fc.boolean(),
});

describe("the scheduler", () => {
  test("keeps every limit, and every request ends exactly once, whatever comes", () => {
    const property = fc.property(anyRequests, anyOptions, (requests, options) => {
      const engine = new SimulatedEngine(options);
      const outcomes = engine.run(requests); // checks each plan
      assert.deepEqual(outcomes.map(({ id }) => id).sort(), requests.map(({ id }) => id).sort());
    });
    fc.assert(property, { numRuns: 150 });
  });

  test("gives the same plans when the trace of its events is played again", () => {
    const property = fc.property(anyRequests, anyOptions, (requests, options) => {
      const engine = new SimulatedEngine(options);
      engine.run(requests);
      assert.equal(replayTrace(engine.trace), undefined);
    });
    fc.assert(property, { numRuns: 30 });
  });

  test("a trace that was changed is told by its line", () => {
    const engine = new SimulatedEngine();
    engine.run([{ id: "x", key: "a", atMs: 0, prompt: prompt(300, 1), answer: 3 }]);
    const lines = engine.trace.split("\n");
    const line = lines.findIndex((text) => text.includes('"tokens":300')) + 1;
    assert.ok(line > 0);
    lines[line - 1] = lines[line - 1]!.replace('"tokens":300', '"tokens":299');
    assert.equal(replayTrace(lines.join("\n"))?.line, line);
    assert.throws(() => replayTrace("{}"), /neither options, event nor plan/);
    assert.throws(() => replayTrace('{"type":"plan","plan":{}}'), /does not begin with the options/);
    assert.throws(() => replayTrace("?"), /is not JSON/);
  });

  test("does nothing when nothing is there, and ignores what it does not know", () => {
    const scheduler = new Scheduler(simulatedOptions);
    scheduler.handle({ type: "end", id: "nobody" });
    scheduler.handle({ type: "started", id: "nobody", cachedTokens: 3 });
    scheduler.handle({ type: "step", milliseconds: 1, progress: [{ id: "nobody", computed: 1, length: 2, draft: 0 }] });
    assert.deepEqual(scheduler.plan(), { preempt: [], start: [], parts: [] });
  });

  test("answers go on while a long prompt is computed, a token in each step", () => {
    const engine = new SimulatedEngine();
    const outcomes = engine.run([
      { id: "short", key: "a", atMs: 0, prompt: prompt(10, 1), answer: 50 },
      { id: "long", key: "b", atMs: 5, prompt: prompt(20_000, 2), answer: 1 },
    ]);
    const short = outcomes.find(({ id }) => id === "short")!;
    // 50 steps of at most 50 ms: the long prompt alone takes 2 seconds.
    assert.ok(short.endMs < 50 * 50, `${short.endMs} ms`);
    const mixed = engine.plans.filter(({ parts }) => parts.length === 2);
    assert.ok(mixed.length >= 40);
    for (const { parts } of mixed) assert.ok(parts.reduce((sum, { tokens }) => sum + tokens, 0) <= 1 + 384);
  });

  test("a better class goes first, and a worse one does not starve", () => {
    const many = (name: string, priority: number, count: number) =>
      Array.from({ length: count }, (_, i) => ({
        id: `${name}${i}`,
        key: name,
        priority,
        atMs: priority === 2 ? 0 : i * 100,
        prompt: prompt(1000, i),
        answer: 2,
      }));
    const engine = new SimulatedEngine({ agingMs: 3000, maxRunning: 2 });
    const outcomes = engine.run([...many("best", 0, 100), ...many("late", 2, 5)]);
    const end = (id: string) => outcomes.find((outcome) => outcome.id === id)!.endMs;
    assert.ok(end("best3") < end("late4"));
    // Two classes are worth 6 seconds; best runs for 10.
    assert.ok(end("late4") < end("best99"), `${end("late4")} ms`);
  });

  test("one key with 100 prompts of 32 k tokens does not double the time to the first token of ten light keys", () => {
    const light: SimulatedRequest[] = Array.from({ length: 40 }, (_, i) => ({
      id: `light${i}`,
      key: `light${i % 10}`,
      atMs: 1000 + i * 211,
      prompt: prompt(1000 + 37 * (i % 7), i),
      answer: 20,
    }));
    const heavy = Array.from({ length: 100 }, (_, i) => ({
      id: `heavy${i}`,
      key: "heavy",
      atMs: 0,
      prompt: prompt(32_768, 100 + i),
      answer: 20,
    }));
    const p95 = (outcomes: readonly { id: string; firstTokenMs: number }[]) =>
      outcomes
        .filter(({ id }) => id.startsWith("light"))
        .map(({ firstTokenMs }) => firstTokenMs)
        .sort((a, b) => a - b)[37]!;
    const solo = p95(new SimulatedEngine().run(light));
    const engine = new SimulatedEngine();
    const beside = p95(engine.run([...heavy, ...light]));
    assert.ok(beside <= 2 * solo, `${beside} ms beside the heavy key, ${solo} ms alone`);
    assert.equal(engine.outcomes.length, 140);
  });

  test("keys with the same load get the same share, however many requests each of them has", () => {
    const engine = new SimulatedEngine({ maxRunning: 8 });
    const requests = ["a", "b", "b", "b", "b", "c", "c"].map((key, i) => ({
      id: `${key}${i}`,
      key,
      atMs: 0,
      prompt: prompt(20_000, i),
      answer: 1,
    }));
    engine.run(requests);
    const first = engine.outcomes.slice(0, 3).map(({ id }) => id[0]);
    assert.deepEqual(first.sort(), ["a", "b", "c"]);
  });

  test("a key that holds every slot gives one back to a key that has none", () => {
    const engine = new SimulatedEngine({ maxRunning: 4, fairnessPatienceMs: 100 });
    const hogs = Array.from({ length: 4 }, (_, i) => ({
      id: `hog${i}`,
      key: "hog",
      atMs: 0,
      prompt: prompt(10, i),
      answer: 5000,
    }));
    const outcomes = engine.run([...hogs, { id: "guest", key: "guest", atMs: 50, prompt: prompt(10, 9), answer: 5 }]);
    assert.equal(outcomes[0]!.id, "guest");
    assert.ok(outcomes[0]!.firstTokenMs < 200, `${outcomes[0]!.firstTokenMs} ms`);
    assert.equal(engine.plans.flatMap(({ preempt }) => preempt).length, 1);
  });

  test("requests with a common prefix wait for the first of them, which stops where they part", () => {
    const engine = new SimulatedEngine();
    const requests = Array.from({ length: 8 }, (_, i) => ({
      id: `r${i}`,
      key: "a",
      atMs: 0,
      prompt: prompt(1500, i, 1000),
      answer: 2,
    }));
    engine.run(requests);
    const remembered = engine.plans.flatMap(({ parts }) => parts).filter(({ id, remember }) => id === "r0" && remember);
    assert.equal(remembered[0]!.tokens % 128, 0);
    const startOf = (id: string) => engine.plans.findIndex(({ start }) => start.includes(id));
    const stop = engine.plans.findIndex(({ parts }) => parts.some(({ id, remember }) => id === "r0" && remember));
    for (const { id } of requests.slice(1))
      assert.ok(startOf(id) > stop, `${id} starts at ${startOf(id)}, the stop is ${stop}`);
  });

  test("waiting for a common prefix ends when patience does", () => {
    const engine = new SimulatedEngine({ sharingPatienceMs: 30 });
    engine.run([
      { id: "first", key: "a", atMs: 0, prompt: prompt(60_000, 0, 59_000), answer: 1 },
      { id: "second", key: "b", atMs: 1, prompt: prompt(59_500, 1, 59_000), answer: 1 },
    ]);
    const start = engine.plans.findIndex(({ start: ids }) => ids.includes("second"));
    assert.ok(start < 8, `started at plan ${start}`);
  });
});

describe("the parts of the scheduler", () => {
  test("turns of busy keys differ by no more than a quantum and a cost", () => {
    const costs = fc.array(fc.integer({ min: 1, max: 300 }), { minLength: 100, maxLength: 300 });
    const property = fc.property(costs, (list) => {
      const queue = new FairQueue(100);
      const keys = new Set(["a", "b", "c"]);
      const spent = new Map([...keys].map((key) => [key, 0]));
      for (const cost of list) {
        const key = queue.pick(keys)!;
        queue.charge(key, cost);
        spent.set(key, spent.get(key)! + cost);
      }
      const values = [...spent.values()];
      assert.ok(Math.max(...values) - Math.min(...values) <= 2 * (100 + 300), values.join());
    });
    fc.assert(property);
  });

  test("nobody is picked where nobody waits, and a debt of any size is worked off", () => {
    const queue = new FairQueue(10);
    assert.equal(queue.pick(new Set()), undefined);
    assert.equal(queue.pick(new Set(["a"])), "a");
    queue.charge("a", 1e12);
    assert.equal(queue.pick(new Set(["a"])), "a");
    assert.equal(queue.pick(new Set(["a", "b"])), "b");
  });

  test("old keys get a turn between any number of newcomers", () => {
    const queue = new FairQueue(10);
    queue.pick(new Set(["old"]));
    queue.charge("old", 10);
    const picked = Array.from({ length: 40 }, (_, i) => {
      const key = queue.pick(new Set(["old", `new${i}`]))!;
      queue.charge(key, 10);
      return key;
    });
    assert.ok(picked.filter((key) => key === "old").length >= 4);
  });

  test("blocks tell how many tokens two prompts have in common, within a namespace", () => {
    const lengths = fc.record({ a: fc.nat(1500), b: fc.nat(1500), shared: fc.nat(1500) });
    const property = fc.property(lengths, ({ a, b, shared }) => {
      const blocks = (length: number, own: number) => prefixBlocks("n", prompt(length, own, shared));
      const expected = Math.floor(Math.min(a, b, shared) / 128) * 128;
      assert.equal(commonTokens(blocks(a, 1), blocks(b, 2)), expected);
    });
    fc.assert(property);
    assert.equal(commonTokens(prefixBlocks("one", prompt(500, 1)), prefixBlocks("two", prompt(500, 1))), 0);
  });

  test("a step's room for prompts follows what steps were measured to last", () => {
    const budget = new StepBudget(2048);
    assert.equal(budget.prefillTokens(0, false), 2048);
    for (let i = 0; i < 50; i++) budget.observe(512, 512 * 0.05);
    assert.equal(budget.prefillTokens(10, true), 640);
    for (let i = 0; i < 50; i++) budget.observe(512, 512 * 10);
    assert.equal(budget.prefillTokens(10, true), 128);
    assert.equal(budget.prefillTokens(2000, true), 48);
    budget.observe(0, Number.NaN);
    assert.equal(budget.prefillTokens(10, true), 128);
  });
});
