import assert from "node:assert/strict";
import { describe, test } from "node:test";
import fc from "fast-check";
import { chatParameters } from "../../../src/server/api/chat/chat-parameters.ts";
import { completionParameters } from "../../../src/server/api/completions/completions.ts";
import { messagesParameters } from "../../../src/server/api/messages/messages-parameters.ts";
import { responsesParameters } from "../../../src/server/api/responses/responses-parameters.ts";
import { apiRoutes } from "../../../src/server/api/routes.ts";
import { chatChunk, chatCompletion, openAiError } from "../../../src/server/api/schemas/chat.ts";
import { type Completion, completion, completionChunk } from "../../../src/server/api/schemas/completions.ts";
import { anthropicError } from "../../../src/server/api/schemas/messages.ts";
import { post, postStream } from "./client.ts";
import { blockOf, callOf } from "./dsml.ts";
import { startRouteServer } from "./route-server.ts";
import { engineInfo, ScriptedEngine, tokenizer } from "./scripted-engine.ts";

const hello = { messages: [{ role: "user", content: "Hi" }] };
const weather = {
  type: "function",
  function: {
    name: "get_weather",
    description: "W",
    parameters: { type: "object", properties: { city: { type: "string" } } },
  },
};

describe("chat completions", () => {
  test("answer with reasoning, content, usage and the name of the served model", async () => {
    const engine = new ScriptedEngine([{ text: "Let me think.</think>Hello!", cachedTokens: 3 }]);
    await using server = await startRouteServer(engine);
    const { status, body } = await post(server, "/v1/chat/completions", { ...hello, model: "gpt-5" });
    assert.equal(status, 200);
    const answer = chatCompletion.parse(body);
    assert.equal(answer.model, engineInfo.name);
    assert.deepEqual(answer.choices[0]!.message, {
      role: "assistant",
      content: "Hello!",
      refusal: null,
      reasoning_content: "Let me think.",
    });
    const promptTokens = engine.requests[0]!.tokenIds.length;
    assert.equal(answer.usage.prompt_tokens, promptTokens);
    assert.equal(answer.usage.prompt_cache_hit_tokens, 3);
    assert.equal(answer.usage.prompt_cache_miss_tokens, promptTokens - 3);
    const reasoningTokens = tokenizer.encode("Let me think.</think>", { special: true }).length;
    assert.equal(answer.usage.completion_tokens_details.reasoning_tokens, reasoningTokens);
    assert.deepEqual(server.accounts, [{ prompt: promptTokens, cached: 3, generated: answer.usage.completion_tokens }]);
  });

  const outputs = [
    "Hello, 世界!",
    `Fine.${blockOf(callOf("get_weather", { city: 'Pa"ris', days: 3 }), callOf("get_weather"))}`,
    "",
    "a\n\nb<",
  ];
  for (const output of outputs) {
    test(`stream the chunks of the same answer: ${JSON.stringify(output)}`, async () => {
      const engine = new ScriptedEngine([{ text: `Hm.</think>${output}` }], (event) => 1 + (event % 3));
      await using server = await startRouteServer(engine);
      const request = { ...hello, tools: [weather], stream_options: { include_usage: true } };
      const whole = chatCompletion.parse((await post(server, "/v1/chat/completions", request)).body);
      const { events } = await postStream(server, "/beta/chat/completions", { ...request, stream: true });
      assert.equal(events.at(-1)!.data, "[DONE]");
      const chunks = events.slice(0, -1).map(({ data }) => chatChunk.parse(JSON.parse(data)));
      assert.equal(chunks[0]!.choices[0]!.delta.role, "assistant");
      assert.deepEqual(chunks.at(-1)!.choices, []);
      assert.deepEqual(chunks.at(-1)!.usage, whole.usage);
      const told = { content: "", reasoning: "", calls: [] as { name: string; arguments: string }[], finish: "" };
      for (const { choices } of chunks) {
        for (const { delta, finish_reason } of choices) {
          told.content += delta.content ?? "";
          told.reasoning += delta.reasoning_content ?? "";
          told.finish = finish_reason ?? told.finish;
          for (const call of delta.tool_calls ?? []) {
            if (call.function.name !== undefined) told.calls[call.index] = { name: call.function.name, arguments: "" };
            told.calls[call.index]!.arguments += call.function.arguments ?? "";
          }
        }
      }
      const { message, finish_reason } = whole.choices[0]!;
      assert.equal(told.content, message.content ?? "");
      assert.equal(told.reasoning, message.reasoning_content);
      assert.equal(told.finish, finish_reason);
      assert.deepEqual(
        told.calls,
        (message.tool_calls ?? []).map((call) => call.function),
      );
    });
  }

  test("n choices have seeds of their own and indices", async () => {
    const engine = new ScriptedEngine(["</think>one", "</think>two", "</think>three"]);
    await using server = await startRouteServer(engine);
    const { body } = await post(server, "/v1/chat/completions", { ...hello, n: 3, seed: 7 });
    assert.deepEqual(
      chatCompletion
        .parse(body)
        .choices.map(({ message }) => message.content)
        .sort(),
      ["one", "three", "two"],
    );
    assert.deepEqual(
      engine.requests.map(({ sampling }) => sampling.seed),
      [7, 8, 9],
    );
    assert.equal(server.accounts[0]!.prompt, engine.requests[0]!.tokenIds.length, "the prompt counts once");
  });

  test("a stop string ends the answer and the engine's work", async () => {
    const engine = new ScriptedEngine([{ text: "</think>one two STOP ", isEndless: true }]);
    await using server = await startRouteServer(engine);
    const { body } = await post(server, "/v1/chat/completions", { ...hello, stop: "STOP" });
    const [choice] = chatCompletion.parse(body).choices;
    assert.deepEqual([choice!.message.content, choice!.finish_reason], ["one two ", "stop"]);
    assert.equal(engine.cancelled.length, 1);
  });

  test("an answer that is cut says so, and its calls have arguments that are JSON", async () => {
    const engine = new ScriptedEngine([
      `</think>${blockOf(callOf("get_weather", { city: "Paris is the capital of France" }))}`,
    ]);
    await using server = await startRouteServer(engine);
    const { body } = await post(server, "/v1/chat/completions", { ...hello, tools: [weather], max_tokens: 40 });
    const [choice] = chatCompletion.parse(body).choices;
    assert.equal(choice!.finish_reason, "length");
    const text = choice!.message.tool_calls![0]!.function.arguments;
    assert.ok("Paris is the capital of France".startsWith(JSON.parse(text).city));
  });

  test("a required call begins with the name of a tool, and thinking is off unless it was named", async () => {
    const engine = new ScriptedEngine([callOf("get_weather", { city: "Rome" })]);
    await using server = await startRouteServer(engine);
    const { body } = await post(server, "/v1/chat/completions", {
      ...hello,
      tools: [weather],
      tool_choice: "required",
    });
    const [choice] = chatCompletion.parse(body).choices;
    assert.deepEqual(
      choice!.message.tool_calls!.map((call) => call.function),
      [{ name: "get_weather", arguments: '{"city": "Rome"}' }],
    );
    assert.equal(choice!.message.reasoning_content, undefined);
    const opening = tokenizer.decode(engine.requests[0]!.beginsWith![0]!);
    assert.equal(opening, '<｜DSML｜invoke name="get_weather">\n');
    const refused = await post(server, "/v1/chat/completions", {
      ...hello,
      tools: [weather],
      tool_choice: { type: "function", function: { name: "get_weather" } },
      thinking: { type: "enabled" },
    });
    assert.equal(refused.status, 400);
    assert.equal(openAiError.parse(refused.body).error.param, "tool_choice");
  });

  test("parallel_tool_calls: false gives one call", async () => {
    const engine = new ScriptedEngine([
      `</think>${blockOf(callOf("get_weather", { city: "A" }), callOf("get_weather", { city: "B" }))}`,
    ]);
    await using server = await startRouteServer(engine);
    const { body } = await post(server, "/v1/chat/completions", {
      ...hello,
      tools: [weather],
      parallel_tool_calls: false,
    });
    const calls = chatCompletion.parse(body).choices[0]!.message.tool_calls!;
    assert.deepEqual(
      calls.map((call) => JSON.parse(call.function.arguments)),
      [{ city: "A" }],
    );
  });

  test("a prefix is continued", async () => {
    const engine = new ScriptedEngine([" world"]);
    await using server = await startRouteServer(engine);
    const { body } = await post(server, "/beta/chat/completions", {
      messages: [...hello.messages, { role: "assistant", content: "Hello", prefix: true }],
      thinking: { type: "disabled" },
    });
    assert.equal(chatCompletion.parse(body).choices[0]!.message.content, " world");
    assert.ok(tokenizer.decode(engine.requests[0]!.tokenIds).endsWith("</think>Hello"));
  });

  test("log probabilities name the tokens of content and reasoning", async () => {
    const engine = new ScriptedEngine(["Hm.</think>Hello"]);
    await using server = await startRouteServer(engine);
    const { body } = await post(server, "/v1/chat/completions", { ...hello, logprobs: true, top_logprobs: 3 });
    const { logprobs } = chatCompletion.parse(body).choices[0]!;
    assert.equal(logprobs!.content!.map(({ token }) => token).join(""), "Hello");
    assert.equal(logprobs!.reasoning_content!.map(({ token }) => token).join(""), "Hm.");
    assert.equal(logprobs!.content![0]!.top_logprobs.length, 3);
  });

  test("a prompt that fills the context is refused in words that agents know", async () => {
    const engine = new ScriptedEngine(["x"], () => 1, { ...engineInfo, contextLength: 50 });
    await using server = await startRouteServer(engine);
    const long = { messages: [{ role: "user", content: "word ".repeat(200) }] };
    const chat = await post(server, "/v1/chat/completions", long);
    assert.equal(chat.status, 400);
    const { error } = openAiError.parse(chat.body);
    assert.equal(error.code, "context_length_exceeded");
    assert.match(error.message, /maximum context length is 50 tokens/);
    const messages = await post(server, "/v1/messages", { ...long, max_tokens: 10 });
    assert.match(anthropicError.parse(messages.body).error.message, /prompt is too long: \d+ tokens > 49 maximum/);
  });

  test("a file of the server's machine is refused, in every dialect that can name one", async () => {
    const engine = new ScriptedEngine(["x"]);
    await using server = await startRouteServer(engine);
    for (const url of ["file:///etc/passwd", "FILE://localhost/a.png", "file:a.png"]) {
      const image = { type: "image_url", image_url: { url } };
      const chat = await post(server, "/v1/chat/completions", {
        messages: [{ role: "user", content: [{ type: "text", text: "What is this?" }, image] }],
      });
      const input = [{ role: "user", content: [{ type: "input_image", image_url: url }] }];
      const response = await post(server, "/v1/responses", { input });
      for (const { status, body } of [chat, response]) {
        assert.equal(status, 400);
        assert.match(JSON.stringify(body), /unsupported_image/); // whatever it names (a model that reads images: images.test.ts)
      }
    }
    assert.equal(engine.requests.length, 0);
  });

  test("max_tokens is cut to what the context has left", async () => {
    const engine = new ScriptedEngine(["</think>x"], () => 1, { ...engineInfo, contextLength: 1000 });
    await using server = await startRouteServer(engine);
    await post(server, "/v1/chat/completions", { ...hello, max_tokens: 5000 });
    const [request] = engine.requests;
    assert.equal(request!.maxTokens, 1000 - request!.tokenIds.length);
  });

  test("strictModel answers unknown names with 404 and takes aliases", async () => {
    await using server = await startRouteServer(new ScriptedEngine(["</think>x"]), {
      strictModel: true,
      aliases: ["deepseek-chat"],
    });
    const unknown = await post(server, "/v1/chat/completions", { ...hello, model: "gpt-5" });
    assert.equal(unknown.status, 404);
    assert.equal(openAiError.parse(unknown.body).error.code, "model_not_found");
    for (const model of ["deepseek-chat", "deepseek-chat[1m]", engineInfo.name])
      assert.equal((await post(server, "/v1/chat/completions", { ...hello, model })).status, 200);
  });

  test("a failure in the middle of a stream is an event, and one before it a status", async () => {
    const failure = { code: "engine_died", message: "The engine died", isRetryable: true };
    const engine = new ScriptedEngine([
      { text: "</think>Hello there", failure: { ...failure, afterTokens: 2 } },
      { text: "</think>Hello there", failure: { ...failure, afterTokens: 0 } },
    ]);
    await using server = await startRouteServer(engine);
    const { events } = await postStream(server, "/v1/chat/completions", { ...hello, stream: true });
    assert.equal(JSON.parse(events.at(-1)!.data).error.code, "engine_died");
    const before = await post(server, "/v1/chat/completions", { ...hello, stream: true });
    assert.deepEqual([before.status, before.headers.get("retry-after")], [503, "1"]);
  });

  test("a slow client gets the same text in fewer events", async () => {
    const engine = new ScriptedEngine([{ text: `</think>${"word ".repeat(300)}` }]);
    await using server = await startRouteServer(engine);
    server.isCongested = true;
    const { events } = await postStream(server, "/v1/chat/completions", { ...hello, stream: true });
    assert.ok(events.length < 10, `${events.length} events`);
    const text = events
      .slice(0, -1)
      .map(({ data }) => JSON.parse(data).choices[0].delta.content ?? "")
      .join("");
    assert.equal(text, "word ".repeat(300));
  });
});

describe("completions", () => {
  test("continue texts and token ids, echo them, and score them", async () => {
    await using server = await startRouteServer(new ScriptedEngine([" end"]));
    const request = { echo: true, logprobs: 2, max_tokens: 5 };
    const texts = completion.parse((await post(server, "/v1/completions", { ...request, prompt: ["The", "An"] })).body);
    assert.deepEqual(
      texts.choices.map(({ text, index }) => [text, index]),
      [
        ["The end", 0],
        ["An end", 1],
      ],
    );
    const { body } = await post(server, "/v1/completions", { ...request, prompt: [[20, 30]] });
    const [{ text, logprobs }] = completion.parse(body).choices as [Completion["choices"][number]];
    assert.equal(text, `${tokenizer.decode([20, 30])} end`);
    assert.equal(logprobs!.token_logprobs[0], null);
    assert.equal(logprobs!.tokens.join(""), text);
    assert.equal(logprobs!.text_offset.at(-1), text.length - logprobs!.tokens.at(-1)!.length);
  });

  test("of no tokens score a prompt", async () => {
    await using server = await startRouteServer(new ScriptedEngine([" end"]));
    const { body } = await post(server, "/v1/completions", {
      prompt: [20, 30],
      echo: true,
      logprobs: 0,
      max_tokens: 0,
    });
    const { choices, usage } = completion.parse(body);
    assert.equal(choices[0]!.text, tokenizer.decode([20, 30]));
    assert.equal(choices[0]!.logprobs!.tokens.length, 2);
    assert.equal(usage.completion_tokens, 0);
  });

  test("fill the gap before a suffix, as a stream", async () => {
    const engine = new ScriptedEngine(["return a"]);
    await using server = await startRouteServer(engine);
    const { events } = await postStream(server, "/beta/completions", { prompt: "f(a) {", suffix: "}", stream: true });
    const chunks = events.slice(0, -1).map(({ data }) => completionChunk.parse(JSON.parse(data)));
    assert.equal(chunks.map(({ choices }) => choices[0]!.text).join(""), "return a");
    assert.equal(chunks.at(-1)!.choices[0]!.finish_reason, "stop");
    assert.match(tokenizer.decode(engine.requests[0]!.tokenIds), /fim▁begin.*f\(a\) \{.*fim▁hole.*\}.*fim▁end/s);
  });
});

describe("what is refused", () => {
  const dialects = [
    { path: "/v1/chat/completions", rules: chatParameters, body: hello },
    { path: "/v1/completions", rules: completionParameters, body: { prompt: "x" } },
    { path: "/v1/responses", rules: responsesParameters, body: { input: "x" } },
    { path: "/v1/messages", rules: messagesParameters, body: { ...hello, max_tokens: 5 } },
  ];
  for (const { path, rules, body } of dialects) {
    test(`${path}: every parameter that the table refuses is refused by name`, async () => {
      await using server = await startRouteServer(new ScriptedEngine(["</think>x"]));
      for (const [name, rule] of Object.entries(rules)) {
        if (typeof rule === "string") continue;
        const { status, body: answer } = await post(server, path, { ...body, [name]: 3 });
        assert.equal(status, 400, name);
        if (path === "/v1/messages") assert.match(anthropicError.parse(answer).error.message, new RegExp(name));
        else assert.equal(openAiError.parse(answer).error.param, name);
      }
    });
  }

  test("json_schema and unknown blocks say where they stand", async () => {
    await using server = await startRouteServer(new ScriptedEngine(["</think>x"]));
    const rows = [
      {
        path: "/v1/chat/completions",
        body: { ...hello, response_format: { type: "json_schema" } },
        param: "response_format",
      },
      {
        path: "/v1/chat/completions",
        body: { messages: [{ role: "user", content: [{ type: "input_audio" }] }] },
        param: "messages[0].content[0].type",
      },
      { path: "/v1/chat/completions", body: { ...hello, temperature: 3 }, param: "temperature" },
      { path: "/v1/chat/completions", body: { messages: [{ content: "x" }] }, param: "messages[0].role" },
      { path: "/v1/responses", body: { input: "x", text: { format: { type: "json_schema" } } }, param: "text.format" },
      { path: "/v1/responses", body: { input: [{ type: "item_reference", id: "x" }] }, param: "input[0].id" },
      { path: "/v1/completions", body: { prompt: [99_999_999] }, param: "prompt" },
    ];
    for (const { path, body, param } of rows) {
      const { status, body: answer } = await post(server, path, body);
      assert.deepEqual([status, openAiError.parse(answer).error.param], [400, param]);
    }
  });

  const keys = fc.constantFrom(
    "messages",
    "input",
    "prompt",
    "tools",
    "tool_choice",
    "thinking",
    "stop",
    "system",
    "stream_options",
    "logit_bias",
    "reasoning",
    "max_tokens",
    "n",
    "temperature",
    "tokens",
    "content",
  );
  const almost = fc.letrec((tie) => ({
    value: fc.oneof(
      { depthSize: "small" },
      fc.jsonValue({ maxDepth: 1 }),
      tie("message"),
      fc.array(tie("message"), { maxLength: 3 }),
    ),
    message: fc.dictionary(
      fc.constantFrom(
        "role",
        "content",
        "type",
        "text",
        "tool_calls",
        "id",
        "call_id",
        "name",
        "function",
        "arguments",
        "input",
        "output",
        "source",
        "tool_use_id",
        "summary",
      ),
      fc.oneof(
        fc.constantFrom(
          "user",
          "assistant",
          "tool",
          "message",
          "text",
          "function_call",
          "reasoning",
          "tool_use",
          "tool_result",
          "thinking",
          "image",
          "document",
        ),
        tie("value"),
      ),
      { maxKeys: 5 },
    ),
  }));
  test("any body is answered, or refused with 400 in the route's shape", async () => {
    await using server = await startRouteServer(new ScriptedEngine(["</think>x"]));
    const paths = [
      "/v1/chat/completions",
      "/v1/completions",
      "/v1/responses",
      "/v1/messages",
      "/v1/messages/count_tokens",
      "/tokenize",
      "/detokenize",
      "/apply-template",
    ];
    const bodies = fc.oneof(fc.dictionary(keys, almost.value, { maxKeys: 5 }), fc.jsonValue({ maxDepth: 2 }));
    await fc.assert(
      fc.asyncProperty(fc.constantFrom(...paths), bodies, async (path, body) => {
        const { status, body: answer } = await post(server, path, body);
        assert.ok(status === 200 || status === 400, `${path} ${status}: ${JSON.stringify(answer)}`);
        if (status === 400) (path.includes("messages") ? anthropicError : openAiError).parse(answer);
      }),
      { numRuns: 500 },
    );
  });

  test("what this model cannot do is 501 with a clear text", async () => {
    await using server = await startRouteServer(new ScriptedEngine(["x"]));
    for (const path of ["/v1/embeddings", "/v1/rerank", "/v1/images/generations", "/v1/audio/speech", "/v1/videos"]) {
      const { status, body } = await post(server, path, {});
      assert.equal(status, 501);
      assert.match(openAiError.parse(body).error.message, /not offered/);
    }
  });

  test("no path stands twice", () => {
    const names = apiRoutes().map(({ method, path }) => `${method} ${path}`);
    assert.deepEqual(names.length, new Set(names).size);
  });
});
