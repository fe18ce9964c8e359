/** The official OpenAI library, its two newest majors, against our routes. */
import assert from "node:assert/strict";
import { describe, test } from "node:test";
import OpenAI from "openai";
import OpenAIOld from "openai-6";
import { responseObject, responsesEvent } from "../../../src/server/api/schemas/responses.ts";
import { HttpError } from "../../../src/server/http-error.ts";
import { postStream } from "./client.ts";
import { blockOf, callOf } from "./dsml.ts";
import { type RouteServer, startRouteServer } from "./route-server.ts";
import { engineInfo, ScriptedEngine, tokenizer } from "./scripted-engine.ts";

const weatherParameters = { type: "object", properties: { city: { type: "string" } }, required: ["city"] };
const responseTool = { type: "function", name: "get_weather", parameters: weatherParameters, strict: null } as const;
const model = "any-name";

const libraries = [
  {
    name: "openai 7",
    make: (server: RouteServer, maxRetries = 0) => new OpenAI({ baseURL: `${server.url}/v1`, apiKey: "k", maxRetries }),
  },
  // The older major has the same methods; what is used here has the same types.
  {
    name: "openai 6",
    make: (server: RouteServer, maxRetries = 0) =>
      new OpenAIOld({ baseURL: `${server.url}/v1`, apiKey: "k", maxRetries }) as unknown as OpenAI,
  },
];

for (const { name, make } of libraries) {
  describe(name, () => {
    test("runs a tool loop of two turns over Chat Completions, and the second prompt begins with the first", async () => {
      const first = `I should look.</think>I look.${blockOf(callOf("get_weather", { city: "Rome", days: [1, 2] }))}`;
      const engine = new ScriptedEngine([first, "Warm.</think>It is warm."]);
      await using server = await startRouteServer(engine);
      let asked: unknown;
      const runner = make(server).chat.completions.runTools({
        model,
        messages: [{ role: "user", content: "Weather in Rome?" }],
        stream: true,
        tools: [
          {
            type: "function",
            function: {
              name: "get_weather",
              description: "W",
              parameters: weatherParameters,
              parse: JSON.parse,
              function: (value: unknown) => {
                asked = value;
                return "warm";
              },
            },
          },
        ],
      });
      assert.equal(await runner.finalContent(), "It is warm.");
      assert.deepEqual(asked, { city: "Rome", days: [1, 2] });
      const [one, two] = engine.requests;
      const computed = [...one!.tokenIds, ...tokenizer.encode(first, { special: true })];
      assert.deepEqual(
        two!.tokenIds.slice(0, computed.length),
        computed,
        "reasoning and calls are rendered as they were generated",
      );
    });

    test("streams content, reasoning, log probabilities and usage", async () => {
      await using server = await startRouteServer(new ScriptedEngine(["Hm.</think>Hello"]));
      const stream = make(server).chat.completions.stream({
        model,
        messages: [{ role: "user", content: "Hi" }],
        logprobs: true,
        top_logprobs: 1,
        stream_options: { include_usage: true },
      });
      const completion = await stream.finalChatCompletion();
      const [choice] = completion.choices;
      assert.equal(choice!.message.content, "Hello");
      assert.equal(choice!.logprobs!.content!.map(({ token }) => token).join(""), "Hello");
      assert.ok((await stream.totalUsage()).completion_tokens > 0);
    });

    test("aborts: the engine's request is cancelled", async () => {
      const engine = new ScriptedEngine([{ text: "</think>again and again ", isEndless: true }]);
      await using server = await startRouteServer(engine);
      const stream = await make(server).chat.completions.create({
        model,
        messages: [{ role: "user", content: "Hi" }],
        stream: true,
      });
      for await (const _ of stream) {
        stream.controller.abort();
        break;
      }
      while (engine.running > 0) await new Promise((resolve) => setImmediate(resolve));
      assert.equal(engine.cancelled.length, 1);
      assert.equal(server.accounts.length, 1);
    });

    test("retries once after 429 and 500", async () => {
      await using server = await startRouteServer(new ScriptedEngine(["</think>Hello"]));
      for (const error of [new HttpError(429, "Full", { retryAfterSeconds: 0.001 }), new HttpError(500, "Broken")]) {
        server.failNext(1, error);
        const answer = await make(server, 1).chat.completions.create({
          model,
          messages: [{ role: "user", content: "Hi" }],
        });
        assert.equal(answer.choices[0]!.message.content, "Hello");
      }
    });

    test("maps errors to its classes", async () => {
      await using server = await startRouteServer(new ScriptedEngine(["x"]), { strictModel: true });
      const client = make(server);
      const request = { model: engineInfo.name, messages: [{ role: "user" as const, content: "Hi" }] };
      const rows: { call: () => Promise<unknown>; error: string; param: string | null }[] = [
        {
          call: () => client.chat.completions.create({ ...request, temperature: 9 }),
          error: "BadRequestError",
          param: "temperature",
        },
        { call: () => client.chat.completions.create({ ...request, model }), error: "NotFoundError", param: "model" },
        { call: () => client.embeddings.create({ model, input: "x" }), error: "InternalServerError", param: null },
        { call: () => client.responses.retrieve("resp_none"), error: "NotFoundError", param: "id" },
      ];
      for (const { call, error, param } of rows) {
        const { promise } = { promise: Promise.resolve().then(call) };
        await assert.rejects(promise, (thrown: InstanceType<typeof OpenAI.APIError>) => {
          assert.deepEqual([thrown.constructor.name, thrown.param ?? null], [error, param]);
          return true;
        });
      }
      server.failNext(1, new HttpError(429, "Full"));
      await assert.rejects(async () => client.models.list(), {
        name: "Error",
        constructor: name === "openai 7" ? OpenAI.RateLimitError : OpenAIOld.RateLimitError,
      });
    });

    test("completes text and lists models", async () => {
      await using server = await startRouteServer(new ScriptedEngine([" end"]));
      const client = make(server);
      const answer = await client.completions.create({ model, prompt: "The", max_tokens: 5, logprobs: 1 });
      assert.equal(answer.choices[0]!.text, " end");
      const models = [];
      for await (const one of client.models.list()) models.push(one.id);
      assert.deepEqual(models, [engineInfo.name]);
      assert.equal((await client.models.retrieve(engineInfo.name)).id, engineInfo.name);
    });

    test("runs a tool loop over Responses, with items sent back and with previous_response_id", async () => {
      const first = `Look.</think>${blockOf(callOf("get_weather", { city: "Rome" }))}`;
      const engine = new ScriptedEngine([first, "</think>Warm.", "</think>Warm still."]);
      await using server = await startRouteServer(engine);
      const client = make(server);
      const base = { model, tools: [responseTool], include: ["reasoning.encrypted_content" as const] };
      const input = [{ role: "user" as const, content: "Weather?" }];
      const stream = client.responses.stream({ ...base, input });
      const one = await stream.finalResponse();
      const call = one.output.find((item) => item.type === "function_call")!;
      assert.deepEqual(JSON.parse(call.arguments), { city: "Rome" });
      const output = { type: "function_call_output" as const, call_id: call.call_id, output: "warm" };
      const two = await client.responses.create({
        ...base,
        input: [...input, ...(one.output as unknown as typeof input), output],
      });
      assert.equal(two.output_text, "Warm.");
      const three = await client.responses.create({ ...base, previous_response_id: one.id, input: [output] });
      assert.equal(three.output_text, "Warm still.");
      assert.deepEqual(engine.requests[2]!.tokenIds, engine.requests[1]!.tokenIds, "both ways give the same prompt");
      const computed = [...engine.requests[0]!.tokenIds, ...tokenizer.encode(first, { special: true })];
      assert.deepEqual(engine.requests[1]!.tokenIds.slice(0, computed.length), computed);
    });

    test("reads back, lists the input of, and deletes a response; store: false keeps none", async () => {
      await using server = await startRouteServer(new ScriptedEngine(["</think>Hello"]));
      const client = make(server);
      const kept = await client.responses.create({ model, input: "Hi", metadata: { a: "b" } });
      assert.deepEqual((await client.responses.retrieve(kept.id)).output, kept.output);
      assert.deepEqual(kept.metadata, { a: "b" });
      const items = [];
      for await (const item of client.responses.inputItems.list(kept.id)) items.push(item);
      assert.equal(items.length, 1);
      await client.responses.delete(kept.id);
      await assert.rejects(async () => client.responses.retrieve(kept.id));
      const dropped = await client.responses.create({ model, input: "Hi", store: false });
      await assert.rejects(async () => client.responses.retrieve(dropped.id));
    });
  });
}

describe("responses", () => {
  const codexTools = [
    { type: "function", name: "shell", parameters: { type: "object", properties: {} }, strict: false },
    {
      type: "namespace",
      name: "mcp",
      description: "M",
      tools: [{ type: "function", name: "search", parameters: { type: "object", properties: {} } }],
    },
    {
      type: "custom",
      name: "apply_patch",
      description: "Patch",
      format: { type: "grammar", syntax: "lark", definition: "start: /x/" },
    },
    { type: "web_search", external_web_access: false },
  ];

  test("every event fits the schema, numbers have no gap, and the last holds what the events told", async () => {
    const calls = blockOf(callOf("shell"), callOf("mcp__search"), callOf("apply_patch", { input: "*** Begin\nx" }));
    await using server = await startRouteServer(new ScriptedEngine([`Think.</think>Text.${calls}`]));
    const request = {
      input: "Hi",
      stream: true,
      tools: codexTools,
      client_metadata: { a: "b" },
      prompt_cache_key: "k",
      store: false,
      include: ["reasoning.encrypted_content"],
    };
    const { events } = await postStream(server, "/v1/responses", request);
    const parsed = events.map(({ event, data }) => {
      const one = responsesEvent.parse(JSON.parse(data));
      assert.equal(one.type, event);
      return one;
    });
    assert.deepEqual(
      parsed.map((event) => event.sequence_number),
      parsed.map((_, i) => i),
    );
    const last = parsed.at(-1)!;
    assert.equal(last.type, "response.completed");
    const response = responseObject.parse("response" in last ? last.response : undefined);
    const done = parsed.flatMap((event) => (event.type === "response.output_item.done" ? [event.item] : []));
    assert.deepEqual(response.output, done);
    assert.deepEqual(
      response.output.map(({ type }) => type),
      ["reasoning", "message", "function_call", "function_call", "custom_tool_call"],
    );
    const [, , , search, patch] = response.output;
    assert.ok(search?.type === "function_call" && search.namespace === "mcp" && search.name === "search");
    assert.ok(patch?.type === "custom_tool_call" && patch.input === "*** Begin\nx");
  });

  test("a summary that was asked for holds the reasoning, and the sealed reasoning comes back", async () => {
    const engine = new ScriptedEngine([`Think.</think>${blockOf(callOf("shell"))}`, "</think>ok"]);
    await using server = await startRouteServer(engine);
    const request = {
      input: "Hi",
      tools: codexTools,
      reasoning: { summary: "auto" },
      include: ["reasoning.encrypted_content"],
      store: false,
      stream: true,
    };
    const { events } = await postStream(server, "/v1/responses", request);
    const { response } = JSON.parse(events.at(-1)!.data);
    const [reasoning, call] = response.output;
    assert.deepEqual(reasoning.summary, [{ type: "summary_text", text: "Think." }]);
    const sealed = { type: "reasoning", id: reasoning.id, summary: [], encrypted_content: reasoning.encrypted_content };
    const input = [
      { role: "user", content: "Hi" },
      sealed,
      { ...call, call_id: "other" },
      { type: "function_call_output", call_id: "other", output: "x" },
    ];
    await postStream(server, "/v1/responses", { ...request, input });
    assert.match(tokenizer.decode(engine.requests[1]!.tokenIds), /<think>Think\.<\/think>/);
  });
});
