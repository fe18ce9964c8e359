/** Vercel's AI SDK with its four providers for our dialects. */
import assert from "node:assert/strict";
import { describe, test } from "node:test";
import { createAnthropic } from "@ai-sdk/anthropic";
import { createDeepSeek } from "@ai-sdk/deepseek";
import { createOpenAI } from "@ai-sdk/openai";
import { createOpenAICompatible } from "@ai-sdk/openai-compatible";
import { APICallError, generateText, isStepCount, type LanguageModel, streamText, tool } from "ai";
import { z } from "zod";
import { HttpError } from "../../../src/server/http-error.ts";
import { blockOf, callOf } from "./dsml.ts";
import { type RouteServer, startRouteServer } from "./route-server.ts";
import { ScriptedEngine, tokenizer } from "./scripted-engine.ts";

const providers: readonly {
  readonly name: string;
  readonly showsReasoning: boolean;
  /** Anthropic's clients ask for thinking; without that there is none. */
  readonly options?: Parameters<typeof generateText>[0]["providerOptions"];
  make(server: RouteServer): LanguageModel;
}[] = [
  {
    name: "@ai-sdk/openai over Responses",
    showsReasoning: true,
    options: { openai: { reasoningSummary: "auto", forceReasoning: true } },
    make: (server) => createOpenAI({ baseURL: `${server.url}/v1`, apiKey: "k" }).responses("any"),
  },
  {
    name: "@ai-sdk/openai over Chat Completions",
    showsReasoning: false,
    make: (server) => createOpenAI({ baseURL: `${server.url}/v1`, apiKey: "k" }).chat("any"),
  },
  {
    name: "@ai-sdk/openai-compatible",
    showsReasoning: true,
    make: (server) => createOpenAICompatible({ name: "freehold", baseURL: `${server.url}/v1` })("any"),
  },
  {
    name: "@ai-sdk/deepseek",
    showsReasoning: true,
    make: (server) => createDeepSeek({ baseURL: server.url, apiKey: "k" })("deepseek-chat"),
  },
  {
    name: "@ai-sdk/anthropic",
    showsReasoning: true,
    options: { anthropic: { thinking: { type: "enabled", budgetTokens: 10_000 } } },
    make: (server) => createAnthropic({ baseURL: `${server.url}/v1`, apiKey: "k" })("claude-x"),
  },
];

for (const { name, showsReasoning, options, make } of providers) {
  const providerOptions = options === undefined ? {} : { providerOptions: options };
  describe(name, () => {
    test("streams a tool loop of two turns, whose second prompt begins with what was computed", async () => {
      const first = `I should look.</think>I look.${blockOf(callOf("get_weather", { city: "Rome" }))}`;
      const engine = new ScriptedEngine([first, "Warm.</think>It is warm."]);
      await using server = await startRouteServer(engine);
      const result = streamText({
        model: make(server),
        ...providerOptions,
        prompt: "Weather in Rome?",
        tools: {
          get_weather: tool({
            inputSchema: z.object({ city: z.string() }),
            execute: async ({ city }) => `warm in ${city}`,
          }),
        },
        stopWhen: isStepCount(3),
      });
      assert.equal(await result.text, "It is warm.");
      const steps = await result.steps;
      assert.deepEqual(
        steps.map(({ finishReason }) => finishReason),
        ["tool-calls", "stop"],
      );
      assert.deepEqual(
        steps[0]!.toolCalls.map(({ input }) => input),
        [{ city: "Rome" }],
      );
      if (showsReasoning) assert.equal(steps[0]!.reasoningText, "I should look.");
      const [one, two] = engine.requests;
      const computed = [...one!.tokenIds, ...tokenizer.encode(first, { special: true })];
      assert.deepEqual(two!.tokenIds.slice(0, computed.length), computed);
    });

    test("answers at once with usage, after one retry", async () => {
      const engine = new ScriptedEngine([
        { text: options || showsReasoning || name.includes("Chat") ? "</think>Hello" : "Hello", cachedTokens: 2 },
      ]);
      await using server = await startRouteServer(engine);
      server.failNext(1, new HttpError(500, "Broken", { retryAfterSeconds: 0.001 }));
      const { text, usage } = await generateText({
        model: make(server),
        ...providerOptions,
        prompt: "Hi",
        maxRetries: 1,
      });
      assert.equal(text, "Hello");
      assert.equal(usage.inputTokens, engine.requests[0]!.tokenIds.length);
      assert.equal(usage.inputTokenDetails.cacheReadTokens, 2);
    });

    test("aborts: the engine's request is cancelled", async () => {
      const engine = new ScriptedEngine([{ text: "</think>again and again ", isEndless: true }]);
      await using server = await startRouteServer(engine);
      const abort = new AbortController();
      const result = streamText({ model: make(server), ...providerOptions, prompt: "Hi", abortSignal: abort.signal });
      for await (const part of result.fullStream) {
        if (part.type === "text-delta") abort.abort();
      }
      while (engine.running > 0) await new Promise((resolve) => setImmediate(resolve));
      assert.equal(engine.cancelled.length, 1);
    });

    test("maps refusals to errors that are not tried again", async () => {
      await using server = await startRouteServer(new ScriptedEngine(["x"]), { strictModel: true });
      await assert.rejects(generateText({ model: make(server), prompt: "Hi", maxRetries: 2 }), (error) => {
        assert.ok(APICallError.isInstance(error), String(error));
        assert.deepEqual([error.statusCode, error.isRetryable], [404, false]);
        return true;
      });
    });
  });
}
