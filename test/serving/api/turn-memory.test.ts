import assert from "node:assert/strict";
import { describe, test } from "node:test";
import { ResponseStore } from "../../../src/server/api/responses/response-store.ts";
import type { ResponseObject } from "../../../src/server/api/schemas/responses.ts";
import { post } from "./client.ts";
import { blockOf, callOf, dsml } from "./dsml.ts";
import { startRouteServer } from "./route-server.ts";
import { ScriptedEngine, tokenizer } from "./scripted-engine.ts";

describe("kept responses", () => {
  const kept = (id: string, previousId?: string) => ({
    response: { id } as ResponseObject, // only the id is read
    input: [`${id} in`],
    output: [`${id} out`],
    previousId,
  });
  test("chain into one history, and a chain with a missing link is none", () => {
    const store = new ResponseStore(100);
    store.put("n", kept("a"), 40);
    store.put("n", kept("b", "a"), 40);
    assert.deepEqual(store.history("n", "b"), ["a in", "a out", "b in", "b out"]);
    assert.equal(store.history("other", "b"), undefined);
    store.put("n", kept("c", "b"), 40); // drives out the oldest
    assert.equal(store.history("n", "c"), undefined);
    assert.ok(store.delete("n", "c"));
    assert.ok(!store.delete("n", "c"));
  });
});

const tools = [
  {
    type: "function",
    function: { name: "edit", parameters: { type: "object", properties: { b: { type: "number" } } } },
  },
];
const user = { role: "user", content: "Hi" };

/** How clients send a turn back: the same to a reader, other bytes. */
const clients: readonly { readonly name: string; send(message: Message): Record<string, unknown> }[] = [
  { name: "sends it as it came", send: (message) => ({ ...message }) },
  { name: "leaves reasoning out", send: ({ reasoning_content: _, ...message }) => message },
  { name: "sends empty reasoning (Qwen Code)", send: (message) => ({ ...message, reasoning_content: "" }) },
  {
    name: "sends the last piece of the reasoning (openai 6)",
    send: (message) => ({ ...message, reasoning_content: "." }),
  },
  { name: "sends empty content in place of null", send: (message) => ({ ...message, content: message.content ?? "" }) },
  {
    name: "sends content in a part",
    send: (message) => ({ ...message, content: [{ type: "text", text: message.content ?? "" }] }),
  },
  {
    name: "writes the arguments anew, in another order",
    send: (message) => ({
      ...message,
      tool_calls: message.tool_calls.map((call) => {
        const sorted = Object.entries(JSON.parse(call.function.arguments)).reverse();
        return { ...call, function: { ...call.function, arguments: JSON.stringify(Object.fromEntries(sorted)) } };
      }),
    }),
  },
];

interface Message {
  readonly content: string | null;
  readonly reasoning_content?: string;
  readonly tool_calls: {
    readonly id: string;
    readonly function: { readonly name: string; readonly arguments: string };
  }[];
}

describe("a session keeps its prefix, token for token, when a client", () => {
  // JSON as a model may write it and printJson does not: no blanks, 1.0 and 2e1.
  const call = callOf("edit", { path: "a.ts" }).replace(
    `</${dsml}invoke>`,
    `<${dsml}parameter name="b" string="false">[1.0,2e1,{"x":"y"}]</${dsml}parameter>\n</${dsml}invoke>`,
  );
  for (const output of [`I see.</think>${blockOf(call)}`, `I see.</think>Editing.${blockOf(call, callOf("edit"))}`]) {
    for (const { name, send } of clients) {
      test(`${name}: ${output.includes("Editing") ? "two calls" : "one call"}`, async () => {
        const engine = new ScriptedEngine([output, "Well.</think>Done.", "</think>Bye."]);
        await using server = await startRouteServer(engine);
        const ask = async (messages: unknown[]) => {
          const { body } = await post(server, "/v1/chat/completions", { messages, tools });
          return (body as { choices: { message: Message }[] }).choices[0]!.message;
        };
        const first = await ask([user]);
        const results = first.tool_calls.map(({ id }) => ({ role: "tool", tool_call_id: id, content: "ok" }));
        const history = [user, send(first), ...results];
        const second = await ask(history);
        await ask([...history, { role: "assistant", content: second.content }, user]);
        const [one, two, three] = engine.requests.map(({ tokenIds }) => tokenIds);
        const encode = (text: string) => tokenizer.encode(text, { special: true });
        const computed = [...one!, ...encode(output)];
        assert.equal(tokenizer.decode(two!.slice(0, computed.length)), tokenizer.decode(computed));
        assert.deepEqual(two!.slice(0, computed.length), computed);
        const later = [...two!, ...encode("Well.</think>Done.")];
        assert.deepEqual(three!.slice(0, later.length), later, "the reasoning of an answer without calls is kept too");
      });
    }
  }

  test("changes what it did, and then the change counts", async () => {
    const engine = new ScriptedEngine([`I see.</think>${blockOf(call)}`, "</think>Done."]);
    await using server = await startRouteServer(engine);
    const { body } = await post(server, "/v1/chat/completions", { messages: [user], tools });
    const { message } = (body as { choices: { message: Message }[] }).choices[0]!;
    const [one] = message.tool_calls;
    const changed = {
      ...message,
      tool_calls: [{ ...one!, function: { name: "edit", arguments: '{"path": "b.ts"}' } }],
    };
    await post(server, "/v1/chat/completions", {
      messages: [user, changed, { role: "tool", tool_call_id: one!.id, content: "ok" }],
      tools,
    });
    const prompt = tokenizer.decode(engine.requests[1]!.tokenIds);
    assert.match(prompt, /b\.ts/);
    assert.doesNotMatch(prompt, /a\.ts/);
  });
});
