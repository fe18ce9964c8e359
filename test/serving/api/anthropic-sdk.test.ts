/** The official Anthropic library, its two newest majors, against our routes. */
import assert from "node:assert/strict";
import { describe, test } from "node:test";
import Anthropic from "@anthropic-ai/sdk";
import AnthropicOld from "anthropic-sdk-0";
import { message, messagesEvent } from "../../../src/server/api/schemas/messages.ts";
import { HttpError } from "../../../src/server/http-error.ts";
import { get, post, postStream } from "./client.ts";
import { blockOf, callOf } from "./dsml.ts";
import { type RouteServer, startRouteServer } from "./route-server.ts";
import { engineInfo, ScriptedEngine, tokenizer } from "./scripted-engine.ts";

const tool = {
  name: "get_weather",
  description: "W",
  input_schema: { type: "object" as const, properties: { city: { type: "string" } } },
};
const hello = { model: "claude-x[1m]", max_tokens: 1000, messages: [{ role: "user" as const, content: "Hi" }] };
const thinking = { type: "adaptive" as const };

const libraries = [
  {
    name: "@anthropic-ai/sdk 1",
    make: (server: RouteServer, maxRetries = 0) => new Anthropic({ baseURL: server.url, apiKey: "k", maxRetries }),
  },
  {
    name: "@anthropic-ai/sdk 0",
    // The older major has the same methods; what is used here has the same types.
    make: (server: RouteServer, maxRetries = 0) =>
      new AnthropicOld({ baseURL: `${server.url}/anthropic`, apiKey: "k", maxRetries }) as unknown as Anthropic,
  },
];

for (const { name, make } of libraries) {
  describe(name, () => {
    test("runs a tool loop with thinking, and the second prompt begins with what was computed", async () => {
      const first = `Look.</think>I look.${blockOf(callOf("get_weather", { city: "Rome", days: [1, 2] }))}`;
      const engine = new ScriptedEngine([{ text: first }, { text: "Warm.</think>It is warm.", cachedTokens: 12 }]);
      await using server = await startRouteServer(engine);
      const client = make(server);
      const stream = client.messages.stream({ ...hello, thinking, tools: [tool] });
      const one = await stream.finalMessage();
      assert.deepEqual(
        one.content.map(({ type }) => type),
        ["thinking", "text", "tool_use"],
      );
      assert.equal(one.stop_reason, "tool_use");
      const call = one.content.find((block) => block.type === "tool_use")!;
      assert.deepEqual(call.input, { city: "Rome", days: [1, 2] });
      const result = {
        type: "tool_result" as const,
        tool_use_id: call.id,
        content: [{ type: "text" as const, text: "warm" }],
      };
      const two = await client.messages.create({
        ...hello,
        thinking,
        tools: [tool],
        messages: [...hello.messages, { role: "assistant", content: one.content }, { role: "user", content: [result] }],
      });
      assert.deepEqual(
        two.content.map((block) => (block.type === "text" ? block.text : block.type)),
        ["thinking", "It is warm."],
      );
      assert.equal(two.usage.cache_read_input_tokens, 12);
      assert.equal(two.usage.input_tokens, engine.requests[1]!.tokenIds.length - 12);
      const computed = [...engine.requests[0]!.tokenIds, ...tokenizer.encode(first, { special: true })];
      assert.deepEqual(engine.requests[1]!.tokenIds.slice(0, computed.length), computed);
    });

    test("aborts: the engine's request is cancelled", async () => {
      const engine = new ScriptedEngine([{ text: "again and again ", isEndless: true }]);
      await using server = await startRouteServer(engine);
      const stream = make(server).messages.stream(hello);
      stream.on("text", () => stream.abort());
      await assert.rejects(stream.finalMessage());
      while (engine.running > 0) await new Promise((resolve) => setImmediate(resolve));
      assert.equal(engine.cancelled.length, 1);
    });

    test("retries once after 429, and maps errors to its classes", async () => {
      await using server = await startRouteServer(new ScriptedEngine(["Hello"]), {
        strictModel: true,
        aliases: ["claude-x"],
      });
      server.failNext(1, new HttpError(429, "Full", { retryAfterSeconds: 0.001 }));
      const answer = await make(server, 1).messages.create(hello);
      assert.equal(answer.content[0]!.type, "text");
      const client = make(server);
      const rows = [
        { request: { ...hello, temperature: 7 }, error: "BadRequestError" },
        { request: { ...hello, model: "unknown" }, error: "NotFoundError" },
      ];
      for (const { request, error } of rows) {
        await assert.rejects(
          async () => client.messages.create(request),
          (thrown: Error) => thrown.constructor.name === error,
        );
      }
    });

    test("counts tokens as a prompt has them, and lists models in its own shape", async () => {
      const engine = new ScriptedEngine(["Hello"]);
      await using server = await startRouteServer(engine);
      const client = make(server);
      const { input_tokens } = await client.messages.countTokens({ model: hello.model, messages: hello.messages });
      await client.messages.create(hello);
      assert.equal(input_tokens, engine.requests[0]!.tokenIds.length);
      const names = [];
      for await (const one of client.models.list()) names.push(one.display_name);
      assert.deepEqual(names, [engineInfo.name]);
    });
  });
}

describe("messages", () => {
  test("every event fits the schema, and the stream is the whole answer", async () => {
    const output = `Hm.</think>Text.${blockOf(callOf("get_weather", { city: "A" }), callOf("get_weather"))}`;
    await using server = await startRouteServer(new ScriptedEngine([output]));
    const request = { ...hello, thinking: { type: "enabled", budget_tokens: 2000 }, tools: [tool] };
    const whole = message.parse((await post(server, "/v1/messages?beta=true", request)).body);
    const { events } = await postStream(server, "/v1/messages?beta=true", { ...request, stream: true });
    const blocks: Record<string, unknown>[] = [];
    for (const { event, data } of events) {
      const one = messagesEvent.parse(JSON.parse(data));
      assert.equal(one.type, event);
      if (one.type === "content_block_start") blocks.push({ ...one.content_block, json: "" });
      if (one.type !== "content_block_delta") continue;
      const block = blocks[one.index]!;
      if (one.delta.type === "text_delta") block.text += one.delta.text;
      if (one.delta.type === "thinking_delta") block.thinking += one.delta.thinking;
      if (one.delta.type === "signature_delta") block.signature = one.delta.signature;
      if (one.delta.type === "input_json_delta") block.json += one.delta.partial_json;
    }
    const told = blocks.map(({ json, id: _, ...block }) =>
      block.type === "tool_use" ? { ...block, input: JSON.parse(json as string) } : block,
    );
    assert.deepEqual(
      told,
      whole.content.map((block) => {
        const { id: _, ...rest } = { id: "", ...block };
        return rest;
      }),
    );
    assert.equal(events.at(-1)!.event, "message_stop");
  });

  const ends = [
    { output: "one STOP", options: { stop_sequences: ["STOP"] }, reason: "stop_sequence", sequence: "STOP" },
    { output: "one two three four", options: { max_tokens: 2 }, reason: "max_tokens", sequence: null },
    { output: "one", options: {}, reason: "end_turn", sequence: null },
    {
      output: callOf("get_weather", { city: "A" }),
      options: { tools: [tool], tool_choice: { type: "any" } },
      reason: "tool_use",
      sequence: null,
    },
  ];
  for (const { output, options, reason, sequence } of ends) {
    test(`an answer that ends by ${reason} says so`, async () => {
      await using server = await startRouteServer(new ScriptedEngine([output]));
      const answer = message.parse((await post(server, "/v1/messages", { ...hello, ...options })).body);
      assert.deepEqual([answer.stop_reason, answer.stop_sequence], [reason, sequence]);
    });
  }

  test("what changes from request to request without meaning changes no token of the prompt", async () => {
    const engine = new ScriptedEngine(["Hello"]);
    await using server = await startRouteServer(engine);
    const cache = { cache_control: { type: "ephemeral" } };
    const billing = (hash: string) => ({
      type: "text",
      text: `x-anthropic-billing-header: cc_version=2.1; cch=${hash};`,
    });
    const variants = [
      { system: [billing("a1b2"), { type: "text", text: "Be brief." }], messages: [{ role: "user", content: "Hi" }] },
      {
        system: [billing("c3d4"), { type: "text", text: "Be brief.", ...cache }],
        messages: [{ role: "user", content: [{ type: "text", text: "Hi", ...cache }] }],
      },
      { system: "Be brief.", messages: [{ role: "user", content: [{ type: "text", text: "Hi" }] }] },
      {
        messages: [
          { role: "system", content: "Be brief." },
          { role: "user", content: "Hi" },
        ],
      },
    ];
    for (const variant of variants)
      await post(server, "/v1/messages", { ...hello, tools: [{ ...tool, ...cache }], ...variant });
    const prompts = engine.requests.map(({ tokenIds }) => tokenizer.decode(tokenIds));
    assert.equal(engine.requests.length, variants.length);
    for (const prompt of prompts) assert.equal(prompt, prompts[0]);
    assert.doesNotMatch(prompts[0]!, /x-anthropic/);
  });

  test("a model that reads no images refuses them wherever they stand", async () => {
    const engine = new ScriptedEngine(["ok"]);
    await using server = await startRouteServer(engine);
    const image = { type: "image", source: { type: "base64", media_type: "image/png", data: "" } };
    const call = { role: "assistant", content: [{ type: "tool_use", id: "t1", name: "get_weather", input: {} }] };
    const result = { role: "user", content: [{ type: "tool_result", tool_use_id: "t1", content: [image] }] };
    for (const messages of [[{ role: "user", content: [image] }], [...hello.messages, call, result]]) {
      const { status, body } = await post(server, "/v1/messages", { ...hello, tools: [tool], messages });
      assert.equal(status, 400);
      assert.match(
        (body as { error: { message: string } }).error.message,
        /holds images, which this model does not read/,
      );
    }
    assert.equal(engine.requests.length, 0);
  });

  test("results of tools may be blocks, and failed ones say so", async () => {
    const engine = new ScriptedEngine(["ok"]);
    await using server = await startRouteServer(engine);
    const { status } = await post(server, "/v1/messages", {
      ...hello,
      tools: [tool],
      messages: [
        { role: "user", content: [{ type: "text", text: "See" }] },
        { role: "assistant", content: [{ type: "tool_use", id: "t1", name: "get_weather", input: {} }] },
        {
          role: "user",
          content: [
            { type: "tool_result", tool_use_id: "t1", is_error: true, content: [{ type: "text", text: "no route" }] },
          ],
        },
      ],
    });
    assert.equal(status, 200);
    const prompt = tokenizer.decode(engine.requests[0]!.tokenIds);
    assert.match(prompt, /<tool_result>Error:\n\nno route<\/tool_result>/);
  });

  test("HEAD / and lists of models in both shapes", async () => {
    await using server = await startRouteServer(new ScriptedEngine(["ok"]));
    assert.equal((await fetch(server.url, { method: "HEAD" })).status, 200);
    const openai = (await get(server, "/v1/models")).body as { data: { context_window: number }[] };
    assert.equal(openai.data[0]!.context_window, engineInfo.contextLength);
    const anthropic = (await get(server, "/v1/models", { "anthropic-version": "2023-06-01" })).body as {
      data: { type: string }[];
    };
    assert.equal(anthropic.data[0]!.type, "model");
  });
});
