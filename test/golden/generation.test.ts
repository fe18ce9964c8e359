/** Answers, sessions and their promises, with the embedded model. */
import assert from "node:assert/strict";
import { describe, test } from "node:test";
import type { GenerationEvent } from "../../src/engine/generation.ts";
import { loadModel } from "../../src/engine/load-model.ts";
import { RequestError, UsageError } from "../../src/errors.ts";

const model = await loadModel();
const ask = (content: string) => ({ messages: [{ role: "user", content }], thinking: { type: "disabled" } });

async function collect(events: AsyncIterable<GenerationEvent>) {
  const all: GenerationEvent[] = [];
  for await (const event of events) all.push(event);
  const last = all.at(-1);
  assert.ok(last?.type === "end");
  return {
    content: all.map((event) => (event.type === "content" ? event.text : "")).join(""),
    result: last.result,
    all,
  };
}

describe("generation", () => {
  test("streams the text that the result holds, and counts its tokens", async () => {
    const { content, result } = await collect(model.generate(ask("Who are you?")));
    assert.equal(content, "I am Freehold seed, a tiny demonstration model that lives on this machine.");
    assert.equal(result.text, content);
    assert.equal(result.finishReason, "stop");
    assert.equal(result.tokenIds.at(-1), 1);
    assert.equal(result.promptTokens, model.encodePrompt(ask("Who are you?")).tokenIds.length);
  });

  test("thinking comes apart from the answer", async () => {
    const request = { ...ask("What is 47 + 38?"), thinking: { type: "enabled" }, reasoning_effort: "low" };
    const { result } = await collect(model.generate(request));
    assert.match(result.reasoning, /carry 1/);
    assert.match(result.text, /47 \+ 38 = 85/);
  });

  test("a tool call comes as name and valid arguments", async () => {
    const tools = [
      {
        type: "function",
        function: {
          name: "get_weather",
          description: "Current weather of a city",
          parameters: { type: "object", properties: { city: { type: "string" } }, required: ["city"] },
        },
      },
    ];
    const { result } = await collect(model.generate({ ...ask("What is the weather in Bergen?"), tools }));
    assert.equal(result.finishReason, "tool_calls");
    assert.equal(result.toolCalls[0]!.name, "get_weather");
    assert.equal(typeof JSON.parse(result.toolCalls[0]!.arguments), "object");
  });

  test("stop strings end the answer before them, across tokens, and never show a part", async () => {
    const { content, result } = await collect(model.generate(ask("Who are you?"), { stop: ["demonstration", "zzz"] }));
    assert.equal(content, "I am Freehold seed, a tiny ");
    assert.equal(result.finishReason, "stop");
  });

  test("maxTokens and the context end an answer as length", async () => {
    const short = await model.complete(ask("Tell me a story."), { maxTokens: 5 });
    assert.deepEqual([short.tokenIds.length, short.finishReason], [5, "length"]);
    using small = await loadModel(undefined, { contextLength: 20 });
    const cut = await small.complete(ask("Tell me a story."), { ignoreEos: true });
    assert.equal(cut.promptTokens + cut.tokenIds.length, 20);
    await assert.rejects(
      small.complete(ask("word ".repeat(30))),
      (error) => error instanceof RequestError && /context only 20/.test(error.message),
    );
  });

  test("a seed repeats an answer, whatever runs beside it", async () => {
    const options = { temperature: 1.5, seed: 5, maxTokens: 20 };
    const alone = await model.complete(ask("Tell me a story."), options);
    const [beside] = await Promise.all([
      model.complete(ask("Tell me a story."), options),
      model.complete(ask("Hi"), { temperature: 2, maxTokens: 15 }),
    ]);
    assert.deepEqual(beside.tokenIds, alone.tokenIds);
    const other = await model.complete(ask("Tell me a story."), { ...options, seed: 6 });
    assert.notDeepEqual(other.tokenIds, alone.tokenIds);
  });

  test("an aborted signal ends it at once, and the model goes on", async () => {
    const controller = new AbortController();
    const events = model.generate(ask("Tell me a story."), { signal: controller.signal });
    await assert.rejects(
      async () => {
        for await (const event of events) if (event.type === "content") controller.abort();
      },
      { name: "AbortError" },
    );
    assert.equal((await model.complete(ask("Hi"), { maxTokens: 1 })).tokenIds.length, 1);
  });

  test("generation lets the event loop run between tokens", async () => {
    let ticks = 0;
    const timer = setInterval(() => ticks++, 1);
    await model.complete(ask("Tell me a story."), { maxTokens: 30 });
    clearInterval(timer);
    assert.ok(ticks > 5, `${ticks} ticks`);
  });

  test("wrong prompts and options are refused by name", async () => {
    await assert.rejects(model.complete(""), (error) => error instanceof RequestError && error.code === "empty-prompt");
    await assert.rejects(
      model.complete([0, 4096]),
      (error) => error instanceof RequestError && /4096/.test(error.message),
    );
    await assert.rejects(model.complete(ask("x"), { maxTokens: 0 }), RequestError);
    await assert.rejects(model.complete(ask("x"), { topP: 2 }), RequestError);
    await assert.rejects(model.complete({ messages: [] }), RequestError);
    await assert.rejects(loadModel(undefined, { device: "abacus" }), UsageError);
  });
});

describe("a session", () => {
  const turn = [
    { role: "user", content: "Who are you?" },
    { role: "assistant", content: "I am Freehold seed, a tiny demonstration model that lives on this machine." },
    { role: "user", content: "What is the capital of France?" },
  ];

  test("computes only what is new, and answers as a new one would", async () => {
    using session = model.createSession();
    await session.complete(ask("Who are you?"));
    const warm = await session.complete({ messages: turn, thinking: { type: "disabled" } });
    const cold = await model.complete({ messages: turn, thinking: { type: "disabled" } });
    assert.deepEqual(warm.tokenIds, cold.tokenIds);
    assert.ok(warm.cachedTokens > 15, `${warm.cachedTokens} tokens reused`);
    assert.equal(cold.cachedTokens, 0);
  });

  test("forked, goes two ways that do not disturb each other", async () => {
    using session = model.createSession();
    await session.complete(ask("Who are you?"));
    using fork = session.fork();
    const [here, there] = await Promise.all([
      session.complete({ messages: turn, thinking: { type: "disabled" } }),
      fork.complete(ask("Tell me a story."), { maxTokens: 20 }),
    ]);
    assert.deepEqual(
      here.tokenIds,
      (await model.complete({ messages: turn, thinking: { type: "disabled" } })).tokenIds,
    );
    assert.deepEqual(there.tokenIds, (await model.complete(ask("Tell me a story."), { maxTokens: 20 })).tokenIds);
  });

  test("wound back further than its cache reaches, gives the same answer", async () => {
    using session = model.createSession();
    const long = model.encode("Once upon a time there was a small fox. ".repeat(40));
    await session.complete(long, { maxTokens: 5, ignoreEos: true });
    session.rewind(300);
    const prompt = [...session.tokenIds];
    const warm = await session.complete(prompt, { maxTokens: 8, ignoreEos: true });
    assert.deepEqual(warm.tokenIds, (await model.complete(prompt, { maxTokens: 8, ignoreEos: true })).tokenIds);
    assert.throws(() => session.rewind(session.tokenIds.length + 1), RequestError);
  });

  test("aborted while it reads a prompt, goes on with what it has read and gives the same answer", async () => {
    const prompt = Array.from({ length: 1500 }, (_, i) => 300 + ((i * 37) % 3000));
    const options = { temperature: 0, maxTokens: 8, ignoreEos: true };
    using session = model.createSession();
    const controller = new AbortController();
    const onPrefill = () => setImmediate(() => setImmediate(() => controller.abort())); // when the second step has begun
    const answer = session.complete(prompt, { ...options, signal: controller.signal, onPrefill });
    await assert.rejects(answer, { name: "AbortError" });
    const { length } = session.tokenIds;
    assert.ok(length === 512 || length === 1024, `${length} tokens are read`);
    assert.deepEqual(session.tokenIds, prompt.slice(0, length));
    const again = await session.complete(prompt, options);
    assert.equal(again.cachedTokens, length);
    assert.deepEqual(again.tokenIds, (await model.complete(prompt, options)).tokenIds);
  });

  test("answers one prompt at a time", async () => {
    using session = model.createSession();
    const first = session.complete(ask("Hi"), { maxTokens: 3 });
    await assert.rejects(
      session.complete(ask("Hi")),
      (error) => error instanceof RequestError && error.code === "busy",
    );
    await first;
    await session.complete(ask("Hi"), { maxTokens: 1 });
  });

  test("gives all its cache back when it is disposed", async () => {
    const used = () => model.runner.cache.layouts.map(({ pool }) => pool.used);
    const before = used();
    const session = model.createSession();
    await session.complete(ask("Tell me a story."));
    assert.notDeepEqual(used(), before);
    session[Symbol.dispose]();
    assert.deepEqual(used(), before);
  });
});

test("a question may be put in any of the four ways", async () => {
  const byMessages = await model.complete(ask("Hi"));
  const byText = await model.complete("<｜begin▁of▁sentence｜><｜User｜>Hi<｜Assistant｜></think>");
  const byIds = await model.complete(model.encodePrompt(ask("Hi")).tokenIds);
  assert.deepEqual(byText.tokenIds, byMessages.tokenIds);
  assert.deepEqual(byIds.tokenIds, byMessages.tokenIds);
  const fill = await model.complete({ prefix: "def double(x):\n    return ", suffix: "\n" });
  assert.ok(fill.tokenIds.length > 0);
});
