/** The batch engine on the embedded model: whatever runs beside it, a request gets what it gets alone, bit for bit. */
import assert from "node:assert/strict";
import { after, describe, test } from "node:test";
import { BatchEngine, type BatchEngineOptions } from "../../src/engine/batching/batch-engine.ts";
import type {
  EngineEvent,
  EngineFailure,
  EngineRequest,
  EngineUsage,
  TokenLogprob,
} from "../../src/engine/batching/engine-port.ts";
import { MemoryCache } from "../../src/engine/batching/memory-cache.ts";
import { RunningStep } from "../../src/engine/batching/running-step.ts";
import type { SequenceCachePort } from "../../src/engine/batching/sequence-cache-port.ts";
import { replayTrace } from "../../src/engine/batching/trace.ts";
import { sequenceBytes } from "../../src/engine/cache/sequence-bytes.ts";
import { Drafting } from "../../src/engine/drafting/drafting.ts";
import { loadModel } from "../../src/engine/load-model.ts";
import type { SamplingOptions } from "../../src/engine/sampling/sampling-options.ts";
import { DeviceError } from "../../src/errors.ts";
import { randomNumbers } from "../small-model.ts";
import { ForkCache } from "./fork-cache.ts";

const model = await loadModel(undefined, { device: "cpu" });
after(() => model[Symbol.dispose]());

/** Events that came after the last one of their request. */
const lateEvents: string[] = [];
after(() => assert.deepEqual(lateEvents, []));

const engineOf = (options: BatchEngineOptions = {}, cache: SequenceCachePort = new MemoryCache(model.runner)) =>
  new BatchEngine(model, cache, options);

const usedPages = () => model.runner.cache.layouts.reduce((sum, { pool }) => sum + pool.used, 0);

/** Token ids that look like text to the model: no special ones. */
const promptOf = (length: number, seed = 0) => Array.from({ length }, (_, i) => 300 + ((i * 37 + seed * 101) % 3000));

function requestOf(id: string, tokenIds: readonly number[], rest: Partial<EngineRequest> = {}): EngineRequest {
  return {
    id,
    tokenIds,
    generated: [],
    sampling: { temperature: 0, seed: 1 },
    maxTokens: 16,
    stopTokenIds: [],
    key: "k",
    priority: 1,
    namespace: "n",
    ...rest,
  };
}

interface Outcome {
  readonly events: EngineEvent[];
  readonly ids: number[];
  readonly logprobs: TokenLogprob[];
  readonly finish: string;
  readonly usage: EngineUsage | undefined;
  readonly error: EngineFailure | undefined;
}

/** Submits a request; the result settles with its last event, and nothing may come after that. */
function ask(engine: BatchEngine, request: EngineRequest, onEvent?: (event: EngineEvent) => void): Promise<Outcome> {
  const { promise, resolve } = Promise.withResolvers<Outcome>();
  const events: EngineEvent[] = [];
  engine.submit(request, (event) => {
    const last = events.at(-1)?.type;
    if (last === "end" || last === "error") lateEvents.push(`${request.id}: ${event.type} after ${last}`);
    events.push(event);
    onEvent?.(event);
    if (event.type !== "end" && event.type !== "error") return;
    const tokens = events.filter((other) => other.type === "tokens");
    resolve({
      events,
      ids: tokens.flatMap(({ ids }) => ids),
      logprobs: tokens.flatMap(({ logprobs }) => logprobs ?? []),
      finish: event.type === "end" ? event.finish : "error",
      usage: event.type === "end" ? event.usage : undefined,
      error: event.type === "error" ? event.error : undefined,
    });
  });
  return promise;
}

/** The same request by the code that answers single prompts. */
function alone({ tokenIds, sampling, maxTokens }: EngineRequest): Promise<readonly number[]> {
  const key = JSON.stringify([tokenIds, sampling, maxTokens]);
  const known =
    answersAlone.get(key) ??
    model.complete(tokenIds, { ...sampling, maxTokens, ignoreEos: true }).then((answer) => answer.tokenIds);
  answersAlone.set(key, known);
  return known;
}
const answersAlone = new Map<string, Promise<readonly number[]>>();

const samplings: (SamplingOptions & { seed: number })[] = [
  { temperature: 0, seed: 1 },
  { temperature: 1, seed: 2 },
  { temperature: 0.8, topP: 0.9, seed: 3 },
  { temperature: 1.2, topK: 40, repetitionPenalty: 1.1, presencePenalty: 0.4, seed: 4 },
];

const mixed = Array.from({ length: 16 }, (_, i) =>
  requestOf(`r${i}`, promptOf([1, 5, 60, 127, 128, 129, 300, 700][i % 8]!, i), {
    sampling: samplings[i % 4]!,
    maxTokens: 4 + ((i * 5) % 20),
    key: `k${i % 3}`,
  }),
);

describe("the batch engine", () => {
  for (const drafting of ["off", "ngram"] as const) {
    test(`requests of all kinds together get the tokens that each gets alone (drafting ${drafting})`, async () => {
      const engine = engineOf({ drafting: new Drafting(drafting) });
      const outcomes = await Promise.all(mixed.map((request) => ask(engine, request)));
      for (const [i, request] of mixed.entries()) {
        assert.deepEqual(outcomes[i]!.ids, await alone(request), request.id);
        assert.equal(outcomes[i]!.finish, "length");
        assert.equal(outcomes[i]!.usage!.generatedTokens, request.maxTokens);
        assert.equal(outcomes[i]!.usage!.promptTokens, request.tokenIds.length);
      }
      await engine.close();
      assert.equal(usedPages(), 0);
    });
  }

  test("preempted requests go on where they were, and the caches stay within their bytes", async () => {
    const cache = new ForkCache(model.runner);
    const { bytesPerSequence, bytesPerToken } = sequenceBytes(model.runner.cache);
    const cacheBytes = 4 * bytesPerSequence + 800 * bytesPerToken;
    let trace = "";
    const onTrace = (line: string) => {
      trace += line;
    };
    const engine = engineOf({ scheduling: { cacheBytes, reservedShare: 0 }, onTrace }, cache);
    const requests = Array.from({ length: 6 }, (_, i) =>
      requestOf(`r${i}`, promptOf(150 + 10 * i, i), { sampling: samplings[i % 4]!, maxTokens: 70 }),
    );
    const outcomes = await Promise.all(requests.map((request) => ask(engine, request)));
    for (const [i, request] of requests.entries()) assert.deepEqual(outcomes[i]!.ids, await alone(request), request.id);
    assert.ok(engine.status.counters.preemptions > 0, "nobody was preempted");
    assert.ok(cache.remembered.some(({ isFinal }) => isFinal));
    assert.equal(replayTrace(trace), undefined);
    await engine.close();
    assert.equal(usedPages(), 0);
  });

  test("an answer that another engine began goes on with the same tokens", async () => {
    const engine = engineOf();
    for (const sampling of samplings) {
      const request = requestOf("whole", promptOf(140), { sampling, maxTokens: 24 });
      const whole = await ask(engine, request);
      for (const given of [1, 10, 23, 24]) {
        const rest = await ask(engine, { ...request, id: "rest", generated: whole.ids.slice(0, given) });
        assert.deepEqual(rest.ids, whole.ids.slice(given));
        assert.equal(rest.usage!.generatedTokens, 24);
      }
    }
  });

  test("log probabilities are those of the model's own distribution", async () => {
    const engine = engineOf();
    const prompt = promptOf(300);
    const request = requestOf("x", prompt, { sampling: samplings[3]!, maxTokens: 12, logprobs: 5, promptLogprobs: 3 });
    const { ids, logprobs, events } = await ask(engine, request);
    const rows = await model.logits([...prompt, ...ids]);
    const told = events.flatMap((event) => (event.type === "promptLogprobs" ? event.logprobs : []));
    assert.equal(told.length, prompt.length - 1);
    assert.equal(logprobs.length, 12);
    for (const [i, { id, logprob, top }] of [...told, ...logprobs].entries()) {
      const row = rows[i]!;
      const logSum = Math.log(row.reduce((sum, logit) => sum + Math.exp(logit), 0));
      assert.equal(id, [...prompt, ...ids][i + 1]);
      assert.ok(Math.abs(logprob - (row[id]! - logSum)) < 1e-9);
      const expected = [...row.keys()].sort((a, b) => row[b]! - row[a]! || a - b).slice(0, i < told.length ? 3 : 5);
      assert.deepEqual(
        top.map((token) => token.id),
        expected,
      );
    }
  });

  test("log probabilities of a prompt are whole though its beginning is in the cache", async () => {
    const cache = new ForkCache(model.runner);
    const engine = engineOf({}, cache);
    const prompt = promptOf(200);
    await ask(engine, requestOf("first", prompt));
    const { events } = await ask(engine, requestOf("second", [...prompt, 400, 500], { promptLogprobs: 0 }));
    const told = events.flatMap((event) => (event.type === "promptLogprobs" ? event.logprobs : []));
    assert.equal(told.length, 201);
    await engine.close();
  });

  test("a prefix is computed once for all that share it, and with the same result", async () => {
    const cache = new ForkCache(model.runner);
    const engine = engineOf({}, cache);
    const shared = promptOf(600);
    const requests = Array.from({ length: 5 }, (_, i) =>
      requestOf(`r${i}`, [...shared, ...promptOf(60, i + 9)], { sampling: samplings[i % 4]! }),
    );
    const outcomes = await Promise.all(requests.map((request) => ask(engine, request)));
    for (const [i, request] of requests.entries()) assert.deepEqual(outcomes[i]!.ids, await alone(request));
    assert.deepEqual(
      outcomes.map(({ usage }) => usage!.cachedTokens),
      [0, 512, 512, 512, 512],
    );
    const stranger = await ask(engine, requestOf("s", requests[0]!.tokenIds, { namespace: "other" }));
    assert.equal(stranger.usage!.cachedTokens, 0);
    await engine.close();
    assert.equal(usedPages(), 0);
  });

  test("an answer begins with one of the given sequences, and goes on freely", async () => {
    const engine = engineOf();
    const beginsWith = [[700, 701, 702], [700, 800], [900]];
    for (const sampling of samplings) {
      const { ids } = await ask(engine, requestOf("x", promptOf(50), { sampling, beginsWith, maxTokens: 10 }));
      const begin = beginsWith.find((sequence) => sequence.every((id, i) => ids[i] === id));
      assert.ok(begin !== undefined, ids.join());
      assert.equal(ids.length, 10);
      // What follows is what follows these tokens anyway.
      if (sampling.temperature === 0)
        assert.equal(ids[begin.length], (await alone(requestOf("y", [...promptOf(50), ...begin])))[0]);
    }
  });

  test("a stop token ends an answer and is its last token", async () => {
    const engine = engineOf();
    const request = requestOf("x", promptOf(50));
    const { ids } = await ask(engine, request);
    const stop = ids[5]!;
    const stopped = await ask(engine, { ...request, stopTokenIds: [stop] });
    assert.deepEqual(stopped.ids, ids.slice(0, ids.indexOf(stop) + 1));
    assert.equal(stopped.finish, "stop");
  });

  test("cancelling ends a request wherever it is, frees its memory, and leaves the others alone", async () => {
    const engine = engineOf({ scheduling: { maxRunning: 3 } });
    const kept = requestOf("kept", promptOf(90), { maxTokens: 60 });
    const cancelOn = (type: string, id: string) => (event: EngineEvent) => {
      if (event.type === type) engine.cancel(id);
    };
    const outcomes = await Promise.all([
      ask(engine, kept),
      ask(engine, requestOf("prefill", promptOf(1900, 1)), cancelOn("prefill", "prefill")),
      ask(engine, requestOf("decode", promptOf(20, 2), { maxTokens: 1000 }), cancelOn("tokens", "decode")),
      ask(engine, requestOf("waiting", promptOf(20, 3)), undefined),
      engine.cancel("waiting"),
      engine.cancel("nobody"),
    ]);
    assert.deepEqual(outcomes[0].ids, await alone(kept));
    for (const outcome of outcomes.slice(1, 4)) assert.equal(outcome!.finish, "cancelled");
    assert.equal(usedPages(), 0);
    assert.deepEqual([engine.status.running, engine.status.waiting], [0, 0]);
  });

  test("2,000 cancelled requests leave nothing behind, and the next one is answered", async () => {
    const engine = engineOf();
    const outcomes = Array.from({ length: 2000 }, (_, i) => {
      const request = requestOf(`r${i}`, promptOf(20 + (i % 200), i), { maxTokens: 1000 });
      const count = i % 5;
      let seen = 0;
      return ask(engine, request, () => {
        if (seen++ === count) engine.cancel(request.id);
      });
    });
    for (let i = 0; i < 2000; i += 2) engine.cancel(`r${i}`);
    await new Promise((resolve) => setImmediate(resolve));
    for (let i = 100; i < 2000; i++) engine.cancel(`r${i}`);
    for (const outcome of await Promise.all(outcomes)) assert.equal(outcome.finish, "cancelled");
    assert.equal(usedPages(), 0);
    const next = requestOf("next", promptOf(30));
    assert.deepEqual((await ask(engine, next)).ids, await alone(next));
  });

  test("a cancelled prompt ends the step that computes it, but not twice in a row at the cost of another answer", async () => {
    const engine = engineOf({ drafting: new Drafting("off") });
    const { runner } = model;
    const step = runner.step.bind(runner);
    const prompts = new Map([1, 2, 3].map((i) => [promptOf(400, i)[0]!, `p${i}`]));
    const outcomes: string[] = [];
    runner.step = async (batch, signal) => {
      const result = step(batch, signal);
      // The prompts are cancelled as soon as their first step has begun, while others take part in it.
      const cancelled = batch.map(({ tokenIds }) => prompts.get(tokenIds[0]!)).filter((id) => id !== undefined);
      if (batch.length > cancelled.length) for (const id of cancelled) engine.cancel(id);
      const outcome = await result.then(
        () => "done",
        () => "stopped",
      );
      if (cancelled.length > 0) outcomes.push(outcome);
      return result;
    };
    try {
      const answer = requestOf("answer", promptOf(60), { maxTokens: 50 });
      let next = 1;
      const answered = ask(engine, answer, ({ type }) => {
        if (type === "tokens" && next <= 3) others.push(ask(engine, requestOf(`p${next}`, promptOf(400, next++))));
      });
      const others: Promise<Outcome>[] = [];
      const { ids } = await answered;
      for (const { finish } of await Promise.all(others)) assert.equal(finish, "cancelled");
      runner.step = step;
      assert.deepEqual(ids, await alone(answer));
      assert.ok(outcomes.includes("stopped"), outcomes.join());
      assert.equal(outcomes.join().includes("stopped,stopped"), false, outcomes.join());
      assert.equal(usedPages(), 0);
    } finally {
      runner.step = step;
    }
  });

  test("requests cancelled at 100 random times change no token of the others and leave no page", async (t) => {
    const engine = engineOf();
    const seed = Number(process.env.FREEHOLD_TEST_SEED ?? Math.floor(Math.random() * 2 ** 31));
    t.diagnostic(`FREEHOLD_TEST_SEED=${seed}`);
    const random = randomNumbers(seed);
    const kept = Array.from({ length: 3 }, (_, i) =>
      requestOf(`kept${i}`, promptOf(100 + 150 * i, i), { sampling: samplings[i]!, maxTokens: 200 }),
    );
    let isOver = false;
    const answers = Promise.all(kept.map((request) => ask(engine, request))).finally(() => {
      isOver = true;
    });
    for (let round = 0; round < 100; round++) {
      const id = `cancelled${round}`;
      const outcome = ask(engine, requestOf(id, promptOf(50 + Math.floor(900 * random()), 10 + round)));
      await new Promise((resolve) => setTimeout(resolve, 60 * random()));
      engine.cancel(id);
      await outcome;
      if (isOver) assert.equal(usedPages(), 0);
    }
    for (const [i, { ids }] of (await answers).entries()) assert.deepEqual(ids, await alone(kept[i]!));
    assert.equal(usedPages(), 0);
  });

  const cancels: { because: string; lost: number[]; wanted: number[]; isRepeat: boolean; stops: boolean }[] = [
    { because: "nobody else takes part", lost: [1], wanted: [], isRepeat: false, stops: true },
    { because: "nobody else takes part, again", lost: [1, 512], wanted: [], isRepeat: true, stops: true },
    { because: "most of it is lost", lost: [256], wanted: [1, 128], isRepeat: false, stops: true },
    { because: "most of it is lost, again", lost: [256], wanted: [1, 128], isRepeat: true, stops: false },
    { because: "half of it is lost", lost: [1], wanted: [1], isRepeat: false, stops: false },
    { because: "little of it is lost", lost: [1], wanted: [128, 1], isRepeat: false, stops: false },
    { because: "nothing of it is lost", lost: [], wanted: [1], isRepeat: false, stops: false },
  ];
  for (const { because, lost, wanted, isRepeat, stops } of cancels)
    test(`a step is ${stops ? "stopped" : "not stopped"} when ${because}`, () => {
      const shares = (counts: number[], isCancelled: boolean) =>
        counts.map((count) => ({ answer: { isCancelled }, append: { tokenIds: promptOf(count) } }));
      const step = new RunningStep([...shares(wanted, false), ...shares(lost, true)], isRepeat);
      step.stopIfWorthIt();
      assert.equal(step.signal.aborted, stops);
    });

  test("64 chats at the same time are 64 chats", async () => {
    const engine = engineOf();
    const { eosTokenIds } = engine.info;
    const chats = Array.from({ length: 64 }, (_, i) => {
      const messages = [{ role: "user", content: `Tell a story about ${i} ${["cats", "ships", "kings"][i % 3]}.` }];
      const { tokenIds } = model.encodePrompt({ messages });
      return requestOf(`c${i}`, tokenIds, {
        sampling: { temperature: 0.7, seed: i },
        stopTokenIds: eosTokenIds,
        maxTokens: 24,
        key: `user${i}`,
      });
    });
    const outcomes = await Promise.all(chats.map((request) => ask(engine, request)));
    for (const i of [0, 13, 63]) {
      const { messages } = { messages: chats[i]!.tokenIds };
      const { tokenIds } = await model.complete(messages, { temperature: 0.7, seed: i, maxTokens: 24 });
      assert.deepEqual(outcomes[i]!.ids, tokenIds);
    }
    assert.ok(engine.status.steps < 64 * 4, `${engine.status.steps} steps: they were not batched`);
  });

  test("logits that are no numbers fail their request only", async () => {
    const engine = engineOf();
    const { runner } = model;
    const step = runner.step.bind(runner);
    const marked = promptOf(33, 7);
    runner.step = async (batch) => {
      const rows = await step(batch);
      batch.forEach(({ sequence }, i) => {
        if (sequence.tokenIds[0] === marked[0] && sequence.length > 35) rows[i]![0]!.fill(Number.NaN, 5, 6);
      });
      return rows;
    };
    try {
      const good = requestOf("good", promptOf(40, 1));
      const outcomes = await Promise.all([ask(engine, requestOf("bad", marked)), ask(engine, good)]);
      assert.equal(outcomes[0].error?.code, "engine_error");
      assert.equal(outcomes[0].ids.length, 3);
      assert.equal(outcomes[1].finish, "length");
      runner.step = step;
      assert.deepEqual(outcomes[1].ids, await alone(good));
      assert.equal(usedPages(), 0);
    } finally {
      runner.step = step;
    }
  });

  test("a request that makes steps fail is found and fails alone", async () => {
    const engine = engineOf();
    const { runner } = model;
    const step = runner.step.bind(runner);
    const marked = promptOf(33, 7);
    runner.step = async (batch) => {
      if (batch.some(({ sequence }) => sequence.tokenIds[0] === marked[0])) throw new Error("boom");
      return step(batch);
    };
    try {
      const good = [1, 2, 3].map((i) => requestOf(`good${i}`, promptOf(40, i)));
      const bad = ask(engine, requestOf("bad", marked));
      const outcomes = await Promise.all(good.map((request) => ask(engine, request)));
      assert.equal((await bad).error?.message, "The engine failed: boom");
      runner.step = step;
      for (const [i, request] of good.entries()) assert.deepEqual(outcomes[i]!.ids, await alone(request));
    } finally {
      runner.step = step;
    }
  });

  test("when the device's process is gone all requests are told, and the engine is dead", async () => {
    const engine = engineOf();
    const { runner } = model;
    const step = runner.step.bind(runner);
    runner.step = async () => {
      throw new DeviceError("The process that computes has ended", { code: "device-process" });
    };
    try {
      const outcomes = await Promise.all([1, 2].map((i) => ask(engine, requestOf(`r${i}`, promptOf(10, i)))));
      for (const { error } of outcomes) assert.deepEqual([error?.code, error?.isRetryable], ["engine_died", true]);
      assert.equal(engine.status.state, "dead");
      assert.equal((await ask(engine, requestOf("late", [5]))).error?.code, "dead");
    } finally {
      runner.step = step;
    }
  });

  const refused: { because: string; change: Partial<EngineRequest>; code: string }[] = [
    { because: "an empty prompt", change: { tokenIds: [] }, code: "empty-prompt" },
    { because: "a token outside the vocabulary", change: { tokenIds: [1, 4096] }, code: "token-id" },
    { because: "such a token in what was generated", change: { generated: [-1] }, code: "token-id" },
    { because: "such a token in a constraint", change: { beginsWith: [[1], [0.5]] }, code: "token-id" },
    {
      because: "a prompt that fills the context",
      change: { tokenIds: promptOf(2048) },
      code: "context_length_exceeded",
    },
    { because: "no tokens to generate", change: { maxTokens: 0 }, code: "request" },
    { because: "too many alternatives", change: { logprobs: 21 }, code: "request" },
    { because: "a priority that is no class", change: { priority: Number.NaN }, code: "request" },
    { because: "a temperature below zero", change: { sampling: { temperature: -1, seed: 1 } }, code: "sampling" },
  ];
  for (const { because, change, code } of refused) {
    test(`${because} is refused with the code ${code}`, async () => {
      const { error } = await ask(engineOf(), { ...requestOf("x", [5, 6]), ...change });
      assert.equal(error?.code, code);
    });
  }

  test("an id in use, one request too many and a draining engine are refused, and what runs is finished", async () => {
    const engine = engineOf({ maxRequests: 1 });
    const running = ask(engine, requestOf("x", promptOf(20)));
    assert.equal((await ask(engine, requestOf("x", [5]))).error?.code, "overloaded");
    const drained = engine.drain();
    assert.equal(engine.status.state, "draining");
    const { error } = await ask(engine, requestOf("y", [5]));
    assert.deepEqual([error?.code, error?.isRetryable], ["draining", true]);
    assert.equal((await running).finish, "length");
    await drained;
    const other = engineOf();
    const first = ask(other, requestOf("x", promptOf(20)));
    assert.equal((await ask(other, requestOf("x", [5]))).error?.code, "duplicate-id");
    assert.equal((await first).finish, "length");
  });

  test("a context's last token is used, and no more than that", async () => {
    const engine = engineOf();
    const { ids, finish } = await ask(engine, requestOf("x", promptOf(2040), { maxTokens: 100 }));
    assert.deepEqual([ids.length, finish], [8, "length"]);
  });

  test("a listener that throws loses its request, nobody else does", async () => {
    const engine = engineOf();
    const warned = new Promise((resolve) => process.once("warning", resolve));
    engine.submit(requestOf("bad", promptOf(10), { maxTokens: 1000 }), () => {
      throw new Error("listener");
    });
    const good = requestOf("good", promptOf(10, 1));
    assert.deepEqual((await ask(engine, good)).ids, await alone(good));
    await warned;
    await engine.drain();
    assert.equal(usedPages(), 0);
  });

  test("the status counts what was done, and a tick is a sign of life", async () => {
    const engine = engineOf();
    await ask(engine, requestOf("x", promptOf(20), { maxTokens: 7 }));
    const { state, steps, counters, heartbeatMs } = engine.status;
    assert.equal(state, "ready");
    assert.ok(steps >= 2 && counters.stepSeconds > 0);
    assert.deepEqual([counters.promptTokens, counters.generatedTokens], [20, 7]);
    assert.ok(Math.abs(heartbeatMs - Date.now()) < 10_000);
    engine.tick(heartbeatMs + 5000);
    assert.equal(engine.status.heartbeatMs, heartbeatMs + 5000);
  });
});
