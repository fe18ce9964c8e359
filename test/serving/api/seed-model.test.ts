/** The embedded model behind the routes: real tokens, real calls, one request at a time. */
import assert from "node:assert/strict";
import { describe, test } from "node:test";
import type { EngineEvent, EngineInfo, EnginePort, EngineRequest } from "../../../src/engine/batching/engine-port.ts";
import { loadModel } from "../../../src/engine/load-model.ts";
import { Sampler } from "../../../src/engine/sampling/sampler.ts";
import { TokenHistory } from "../../../src/engine/sampling/token-history.ts";
import { chatCompletion } from "../../../src/server/api/schemas/chat.ts";
import { completion } from "../../../src/server/api/schemas/completions.ts";
import { message } from "../../../src/server/api/schemas/messages.ts";
import { post } from "./client.ts";
import { startRouteServer } from "./route-server.ts";
import { engineInfo } from "./scripted-engine.ts";

const model = await loadModel();

/** The smallest engine there can be: no batch, no cache. */
class SingleEngine implements EnginePort {
  readonly info: EngineInfo = {
    ...engineInfo,
    contextLength: model.contextLength,
    addsBeginOfSequence: model.addsBeginOfSequence,
    defaults: { temperature: 0 },
  };
  readonly #cancelled = new Set<string>();
  #last: Promise<void> = Promise.resolve();

  submit(request: EngineRequest, listener: (event: EngineEvent) => void): void {
    this.#last = this.#last.then(() => this.#answer(request, listener));
  }

  cancel(id: string): void {
    this.#cancelled.add(id);
  }

  get status(): never {
    throw new Error("The single engine tells no status");
  }

  async #answer(request: EngineRequest, listener: (event: EngineEvent) => void): Promise<void> {
    const sampler = new Sampler(request.sampling);
    const history = new TokenHistory(request.tokenIds);
    using sequence = model.runner.createSequence();
    let next = [...request.tokenIds];
    const ids: number[] = [];
    listener({ type: "started", cachedTokens: 0 });
    while (ids.length < request.maxTokens && !this.#cancelled.has(request.id)) {
      const [logits] = await model.runner.append({ sequence, tokenIds: next, outputs: 1 });
      const demanded = request.beginsWith?.[0]?.[ids.length];
      const id = demanded ?? sampler.sample(logits!, history);
      history.push(id);
      ids.push(id);
      next = [id];
      listener({ type: "tokens", ids: [id] });
      if (request.stopTokenIds.includes(id)) break;
    }
    const seconds = { queue: 0, prefill: 0, decode: 0 };
    const usage = {
      promptTokens: request.tokenIds.length,
      cachedTokens: 0,
      generatedTokens: ids.length,
      draftedTokens: 0,
      acceptedTokens: 0,
      seconds,
    };
    const isStopped = request.stopTokenIds.includes(ids.at(-1) ?? -1);
    listener({
      type: "end",
      finish: this.#cancelled.has(request.id) ? "cancelled" : isStopped ? "stop" : "length",
      usage,
    });
  }
}

const weather = {
  name: "get_weather",
  description: "Get the weather of a city",
  parameters: { type: "object", properties: { city: { type: "string" } }, required: ["city"] },
};

describe("the embedded model behind the routes", () => {
  test("answers in three dialects with the same text", async () => {
    await using server = await startRouteServer(new SingleEngine());
    const messages = [{ role: "user", content: "What is the capital of France?" }];
    const chat = await post(server, "/v1/chat/completions", { messages, thinking: { type: "disabled" } });
    const { content } = chatCompletion.parse(chat.body).choices[0]!.message;
    assert.match(content!, /Paris/);
    const anthropic = message.parse((await post(server, "/v1/messages", { messages, max_tokens: 100 })).body);
    assert.deepEqual(anthropic.content, [{ type: "text", text: content, citations: null }]);
    const template = await post(server, "/apply-template", { messages, thinking: { type: "disabled" } });
    const { prompt } = template.body as { prompt: string };
    const raw = completion.parse((await post(server, "/v1/completions", { prompt, max_tokens: 100 })).body);
    assert.equal(raw.choices[0]!.text, content);
  });

  test("calls a tool that is required, with arguments that are JSON", async () => {
    await using server = await startRouteServer(new SingleEngine());
    const { body } = await post(server, "/v1/chat/completions", {
      messages: [{ role: "user", content: "What is the weather in Paris?" }],
      tools: [{ type: "function", function: weather }],
      tool_choice: "required",
      max_tokens: 100,
    });
    const [call] = chatCompletion.parse(body).choices[0]!.message.tool_calls!;
    assert.equal(call!.function.name, "get_weather");
    assert.equal(typeof JSON.parse(call!.function.arguments), "object");
  });
});
