/** Requests of tens of thousands of messages, parts and calls are read in turns, to what they say when they are read at once. */
import assert from "node:assert/strict";
import { describe, test } from "node:test";
import { parseChatRequest, parseChatRequestInSteps } from "../../src/chat/chat-request.ts";
import { renderPrompt, renderPromptInSteps } from "../../src/chat/render-prompt.ts";
import { Pacer } from "../../src/engine/pacer.ts";
import { RequestError } from "../../src/errors.ts";
import { type JsonObject, parseJson } from "../../src/json/parse-json.ts";
import { checkBySchema, type ObjectSchema } from "../../src/server/api/check-by-schema.ts";
import { chatRequest } from "../../src/server/api/schemas/chat.ts";
import { completionRequest } from "../../src/server/api/schemas/completions.ts";
import { llamaCompletionRequest } from "../../src/server/api/schemas/llama.ts";
import { messagesRequest } from "../../src/server/api/schemas/messages.ts";
import { responsesRequest } from "../../src/server/api/schemas/responses.ts";
import { detokenizeRequest } from "../../src/server/api/schemas/tokens.ts";

class CountingPacer extends Pacer {
  pauses = 0;

  override async pause(): Promise<void> {
    this.pauses++;
  }
}

const many = <T>(each: (i: number) => T, count = 5000): T[] => Array.from({ length: count }, (_, i) => each(i));
const message = (i: number) => ({ role: i % 2 === 0 ? "user" : "assistant", content: "x", extra: i });
const parts = many((i) => ({ type: "text", text: `${i}` }));
const call = (i: number) => ({ id: `c${i}`, type: "function", function: { name: "f", arguments: "{}" } });

interface Case {
  readonly schema: ObjectSchema<unknown>;
  readonly body: Record<string, unknown>;
  /** A list in the body, and what none of its elements may be. */
  readonly list: readonly unknown[];
  readonly wrong: unknown;
  readonly place: string;
}

const history = many(message);
const tokens = many((i) => i);
const texts = many((i) => `${i}`);
const mixed = many((i) => (i % 2 === 0 ? i : "a"));
const calls = many(call);
const tools = many((i) => ({ type: "function", function: { name: `f${i}` } }));

const cases: Readonly<Record<string, Case>> = {
  "messages of a chat": {
    schema: chatRequest,
    body: { messages: history, model: "m" },
    list: history,
    wrong: { role: 1 },
    place: "messages",
  },
  "parts of a message": {
    schema: chatRequest,
    body: { messages: [{ role: "user", content: parts }] },
    list: parts,
    wrong: { type: 1 },
    place: "messages.0.content",
  },
  "calls of a message": {
    schema: chatRequest,
    body: {
      messages: [
        { role: "user", content: "x" },
        { role: "assistant", content: null, tool_calls: calls },
      ],
    },
    list: calls,
    wrong: { id: 1 },
    place: "messages.1.tool_calls",
  },
  tools: { schema: chatRequest, body: { messages: [message(0)], tools }, list: tools, wrong: 1, place: "tools" },
  "messages of the Messages API": {
    schema: messagesRequest,
    body: { messages: history, max_tokens: 1 },
    list: history,
    wrong: { role: "tool" },
    place: "messages",
  },
  "blocks of the Messages API": {
    schema: messagesRequest,
    body: { messages: [{ role: "user", content: parts }] },
    list: parts,
    wrong: {},
    place: "messages.0.content",
  },
  "items of a response": {
    schema: responsesRequest,
    body: { input: history },
    list: history,
    wrong: { type: 1 },
    place: "input",
  },
  "tokens of a prompt": {
    schema: completionRequest,
    body: { prompt: tokens },
    list: tokens,
    wrong: -1,
    place: "prompt",
  },
  "texts of a prompt": { schema: completionRequest, body: { prompt: texts }, list: texts, wrong: {}, place: "prompt" },
  "tokens and texts": {
    schema: llamaCompletionRequest,
    body: { prompt: mixed },
    list: mixed,
    wrong: {},
    place: "prompt",
  },
  "tokens to decode": { schema: detokenizeRequest, body: { tokens }, list: tokens, wrong: 0.5, place: "tokens" },
};

function check({ schema, body }: Case, pacer: Pacer) {
  const json = parseJson(JSON.stringify(body)) as JsonObject;
  return checkBySchema(schema, json.entries, pacer);
}

describe("a long list in a request: ", () => {
  for (const [name, one] of Object.entries(cases)) {
    test(`${name} are checked a part at a time, to the same value`, async () => {
      const pacer = new CountingPacer();
      const checked = await check(one, pacer);
      assert.ok("value" in checked, JSON.stringify(checked));
      assert.deepEqual(checked.value, one.schema.parse(one.body));
      assert.ok(pacer.pauses >= 5000 / 512 - 1, `${pacer.pauses} pauses`);
    });

    test(`${name} with one that is wrong are refused, wherever it stands`, async () => {
      for (const at of [0, 1, 511, 512, 3333, 4999]) {
        const list = one.list as unknown[];
        const right = list[at];
        list[at] = one.wrong;
        const checked = await check(one, new Pacer());
        const bySchema = one.schema.safeParse(one.body);
        list[at] = right;
        assert.equal(bySchema.success, false);
        assert.ok("issue" in checked, `element ${at}`);
        const path = checked.issue.path.join(".");
        assert.ok(path === one.place || path.startsWith(`${one.place}.${at}`), path);
      }
    });
  }

  test("lists of two kinds in one are no prompt", async () => {
    const prompt = [...many((i) => i, 600), ...many((i) => `${i}`, 600)];
    const body = { prompt };
    const one = { schema: completionRequest, body, list: prompt, wrong: 0, place: "prompt" };
    assert.equal(completionRequest.safeParse(body).success, false);
    assert.ok("issue" in (await check(one, new Pacer())));
  });

  test("what else is wrong with the body is told", async () => {
    const one = { ...cases["messages of a chat"]!, body: { messages: history, model: 5 } };
    const checked = await check(one, new Pacer());
    assert.ok("issue" in checked);
    assert.deepEqual(checked.issue.path, ["model"]);
  });
});

describe("a long conversation", () => {
  const result = (i: number) => ({ role: "tool", tool_call_id: `c${i}`, content: `${i}` });
  const conversations = {
    "of messages": many(message),
    "of calls and results": [
      { role: "user", content: "x" },
      { role: "assistant", content: null, tool_calls: many(call) },
      ...many(result),
    ],
  };
  for (const [name, messages] of Object.entries(conversations)) {
    test(`${name} is read and rendered in steps, to the same`, () => {
      const json = parseJson(JSON.stringify({ messages }));
      const read = inSteps(parseChatRequestInSteps(json));
      assert.deepEqual(read.result, parseChatRequest(json));
      assert.ok(read.steps >= messages.length / 256 - 1, `${read.steps} steps`);
      const rendered = inSteps(renderPromptInSteps(read.result, "v4"));
      assert.equal(rendered.result.text, renderPrompt(read.result, "v4").text);
      assert.ok(rendered.steps >= messages.length / 256 - 1, `${rendered.steps} steps`);
    });
  }

  test("of thousands of results is checked in a time that grows with their number alone", () => {
    const seconds = (count: number) => {
      const messages = [
        { role: "user", content: "x" },
        { role: "assistant", content: null, tool_calls: many(call, count) },
        ...many(result, count),
      ];
      const json = parseJson(JSON.stringify({ messages }));
      return Math.min(...many(() => timed(() => parseChatRequest(json)), 5));
    };
    const [few, often] = [seconds(1000), seconds(16_000)];
    assert.ok(often < 80 * few, `${few} s, and ${often} s for 16 times as many`); // their square would be 256 times as long
  });

  test("with a result that answers no call, or a call without a result, is refused", () => {
    const messages = [{ role: "assistant", content: null, tool_calls: many(call, 3) }, ...many(result, 3)];
    for (const [changed, says] of [
      [messages.slice(0, -1), /call "c2" is not answered/],
      [[...messages, result(7)], /answers no call/],
      [[result(0), ...messages], /answers no call/],
      [[...messages, { role: "user", content: "x" }, result(0)], /answers no call/],
    ] as const) {
      assert.throws(
        () => parseChatRequest({ messages: changed }),
        (error) => error instanceof RequestError && says.test(error.message),
      );
    }
  });
});

function timed(work: () => unknown): number {
  const started = performance.now();
  work();
  return performance.now() - started;
}

function inSteps<Result>(work: Iterator<undefined, Result>): { result: Result; steps: number } {
  for (let steps = 0; ; steps++) {
    const step = work.next();
    if (step.done) return { result: step.value, steps };
  }
}
