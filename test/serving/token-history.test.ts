/**
 * Conversations whose answers have tokens that no tokenizer makes of their text, over all APIs: what a client sends back as text goes
 * on from what was computed. The gateway, the engine, the prefix cache and the files are the real ones; the engine is told the
 * beginning of each answer, which is a random splitting of a text into tokens of the vocabulary.
 */
import assert from "node:assert/strict";
import { mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, describe, test } from "node:test";
import fc from "fast-check";
import { encodePrompt, type PromptPart } from "../../src/chat/prompt.ts";
import { BatchEngine } from "../../src/engine/batching/batch-engine.ts";
import type { EngineEvent, EnginePort, EngineRequest } from "../../src/engine/batching/engine-port.ts";
import { MemoryCache } from "../../src/engine/batching/memory-cache.ts";
import { PrefixCache } from "../../src/engine/cache/prefix-cache.ts";
import { loadModel } from "../../src/engine/load-model.ts";
import { contentIds } from "../../src/engine/vision/content-ids.ts";
import { ConversationMemory } from "../../src/server/generation/conversation-memory.ts";
import type { TokenHistory } from "../../src/server/generation/token-history.ts";
import { GatewayHost } from "../../src/server/processes/gateway-host.ts";
import { resolveServeConfig } from "../../src/server/serve-config.ts";
import { randomNumbers } from "../small-model.ts";
import { blockOf, callOf } from "./api/dsml.ts";

const model = await loadModel(undefined, { device: "cpu", threads: 1 });
after(() => model[Symbol.dispose]());
const tokenizer = model.tokenizer!;
const eos = model.config.eosTokenIds[0]!;

/** Tokens of the vocabulary by their bytes. */
const idOfBytes = new Map<string, number>();
for (let id = 0; id < tokenizer.vocabSize; id++)
  if (tokenizer.has(id) && !tokenizer.isAdded(id))
    idOfBytes.set(Buffer.from(tokenizer.tokenBytes(id)).toString("latin1"), id);

/** Ids with the bytes of a text, of which few are those that the tokenizer would choose; special tokens stay. */
function splitAnyhow(text: string, random: () => number): number[] {
  const runs = text.split(/(<\/think>|｜DSML｜|<｜User｜>)/);
  return runs.flatMap((run, i) => {
    if (i % 2 === 1) return [tokenizer.tokenId(run)!];
    const bytes = Buffer.from(run).toString("latin1");
    const ids: number[] = [];
    for (let at = 0; at < bytes.length; ) {
      let length = Math.min(bytes.length - at, 1 + Math.floor(6 * random()));
      while (!idOfBytes.has(bytes.slice(at, at + length))) length--;
      ids.push(idOfBytes.get(bytes.slice(at, at + length))!);
      at += length;
    }
    return ids;
  });
}

interface Asked {
  readonly promptIds: readonly number[];
  readonly answerIds: readonly number[];
  cachedTokens: number;
}

/** The real engine, whose answers begin as a test wants them to. */
class LedEngine implements EnginePort {
  readonly asked: Asked[] = [];
  next: readonly number[] = [];
  readonly #engine: BatchEngine;

  constructor(engine: BatchEngine) {
    this.#engine = engine;
  }

  /** The engine without its lead. */
  get ahead(): EnginePort {
    return this.#engine;
  }

  get info() {
    return this.#engine.info;
  }

  get status() {
    return this.#engine.status;
  }

  submit(request: EngineRequest, listener: (event: EngineEvent) => void): void {
    const asked: Asked = { promptIds: request.tokenIds, answerIds: this.next, cachedTokens: -1 };
    this.asked.push(asked);
    const led = { ...request, maxTokens: this.next.length, beginsWith: [this.next] };
    this.#engine.submit(led, (event) => {
      if (event.type === "started") asked.cachedTokens = event.cachedTokens;
      listener(event);
    });
  }

  cancel(id: string, keptTokens?: number): void {
    this.#engine.cancel(id, keptTokens);
  }
}

interface Server extends AsyncDisposable {
  readonly engine: LedEngine;
  readonly url: string;
}

async function startServer(directory: string): Promise<Server> {
  const cache = await PrefixCache.open({
    runner: model.runner,
    modelDigest: "m",
    memoryBudgetBytes: 256 << 20,
    store: { directory: join(directory, "kv"), budgetBytes: 256 << 20, reserveBytes: 0 },
  });
  const batch = new BatchEngine(model, cache);
  const engine = new LedEngine(batch);
  const config = resolveServeConfig({
    port: 0,
    log: "off",
    turnDirectory: join(directory, "turns"),
  });
  const host = await GatewayHost.start(config, { engine, version: "0.0.0" });
  return {
    engine,
    url: host.url,
    async [Symbol.asyncDispose]() {
      await host.close();
      await batch.close();
    },
  };
}

function inDirectory<T>(work: (directory: string) => Promise<T>): Promise<T> {
  const directory = mkdtempSync(join(tmpdir(), "freehold-history-"));
  return work(directory).finally(() => rmSync(directory, { recursive: true, force: true, maxRetries: 5 }));
}

// biome-ignore lint/suspicious/noExplicitAny: the answers of three APIs, each looked into by its client
async function post(url: string, path: string, body: object): Promise<any> {
  const response = await fetch(url + path, {
    method: "POST",
    headers: { "content-type": "application/json" },
    body: JSON.stringify(body),
  });
  const answer = await response.json();
  assert.equal(response.status, 200, JSON.stringify(answer));
  return answer;
}

const tool = {
  name: "edit",
  description: "Edits.",
  parameters: { type: "object", properties: { path: { type: "string" } } },
};

/** A conversation in one of the APIs: what a usual client sends back of an answer. */
interface Client {
  readonly name: string;
  ask(url: string, history: readonly object[], hasTools: boolean): Promise<object[]>;
  user(text: string): object;
  result(answer: readonly object[], text: string): object;
}

const clients: readonly Client[] = [
  {
    name: "chat completions",
    async ask(url, messages, hasTools) {
      const tools = hasTools ? { tools: [{ type: "function", function: tool }] } : { thinking: { type: "disabled" } };
      const { choices } = await post(url, "/v1/chat/completions", { messages, ...tools });
      const { reasoning_content: _, ...message } = choices[0].message;
      return [message];
    },
    user: (content) => ({ role: "user", content }),
    // biome-ignore lint/suspicious/noExplicitAny: a message as it came
    result: ([message]: any, content) => ({ role: "tool", tool_call_id: message.tool_calls[0].id, content }),
  },
  {
    name: "responses",
    async ask(url, input, hasTools) {
      const tools = hasTools ? { tools: [{ type: "function", ...tool }] } : { reasoning: { effort: "none" } };
      const { output } = await post(url, "/v1/responses", { input, ...tools, store: false });
      return output.filter(({ type }: { type: string }) => type !== "reasoning");
    },
    user: (content) => ({ role: "user", content }),
    result: (items, output) => {
      const call = items.find((item) => "call_id" in item) as unknown as { call_id: string };
      return { type: "function_call_output", call_id: call.call_id, output };
    },
  },
  {
    name: "messages",
    async ask(url, messages, hasTools) {
      const { parameters: input_schema, ...rest } = tool;
      const tools = hasTools
        ? { tools: [{ ...rest, input_schema }], thinking: { type: "enabled", budget_tokens: 1024 } }
        : {};
      const { content } = await post(url, "/v1/messages", { messages, ...tools, max_tokens: 1000 });
      return [{ role: "assistant", content: content.filter(({ type }: { type: string }) => type !== "thinking") }];
    },
    user: (content) => ({ role: "user", content }),
    // biome-ignore lint/suspicious/noExplicitAny: a message as it came
    result: ([message]: any, content) => {
      const { id } = message.content.find(({ type }: { type: string }) => type === "tool_use");
      return { role: "user", content: [{ type: "tool_result", tool_use_id: id, content }] };
    },
  },
];

const story = "Once upon a time there was a little cat who lived in a red house by the sea. 先想一下 🙂 naïve\n";

/** Answers of a conversation: plain text, or turns of an agent. */
const talks = {
  "plain answers": (turn: number) => `Turn ${turn}: ${story.repeat(2)}`,
  "answers between newlines": (turn: number) => `\n\nTurn ${turn}: ${story.repeat(2)}\n\n`,
  "reasoning and calls": (turn: number) =>
    `\nLet me think about ${turn}.\n</think>\nEditing. ${story}${blockOf(callOf("edit", { path: `a${turn}.ts 🙂` }))}`,
};

/** The share of what was computed for a turn that the next one does not compute again, the least of all turns. */
function leastReused(asked: readonly Asked[]): number {
  const shares = asked.slice(1).map(({ cachedTokens }, i) => {
    const { promptIds, answerIds } = asked[i]!;
    return cachedTokens / (promptIds.length + answerIds.length - 1);
  });
  return Math.min(...shares);
}

/** Some more turns of a conversation. */
async function talk(
  server: Server,
  client: Client,
  kind: keyof typeof talks,
  turns: number,
  seed: number,
  before: readonly object[],
): Promise<object[]> {
  const random = randomNumbers(seed);
  const history = before.length > 0 ? [...before] : [client.user("Please begin.")];
  const hasTools = kind === "reasoning and calls";
  for (let turn = 0; turn < turns; turn++) {
    server.engine.next = [...splitAnyhow(talks[kind](turn), random), eos];
    const answer = await client.ask(server.url, history, hasTools);
    history.push(...answer, hasTools ? client.result(answer, "ok") : client.user(`Go on, ${turn}.`));
  }
  return history;
}

const kinds = Object.keys(talks) as (keyof typeof talks)[];

for (const client of clients)
  for (const kind of kinds)
    test(`over ${client.name}, ${kind}: what was computed is found again, turn after turn and after a restart`, () =>
      inDirectory(async (directory) => {
        let history: object[] = [];
        const asked: Asked[] = [];
        for (const seed of [1, 2]) {
          await using server = await startServer(directory);
          history = await talk(server, client, kind, 3, seed, history);
          asked.push(...server.engine.asked);
          await assertExact(server, asked.at(-1)!);
        }
        const least = leastReused(asked);
        assert.ok(least >= 0.99, `${(100 * least).toFixed(1)} % of a turn was found again`);
      }));

/** A hit gives bitwise what computing the same tokens anew gives. */
async function assertExact(server: Server, { promptIds }: Asked): Promise<void> {
  const request = { id: "exact", tokenIds: promptIds, generated: [], maxTokens: 4, stopTokenIds: [], logprobs: 5 };
  const rest = { sampling: { temperature: 1, seed: 5 }, key: "k", priority: 1, namespace: "anonymous" };
  const cold = new BatchEngine(model, new MemoryCache(model.runner));
  const [found, anew] = await Promise.all(
    [server.engine.ahead, cold].map((engine) => run(engine, { ...request, ...rest })),
  );
  await cold.close();
  assert.ok(found!.cachedTokens > 0.9 * promptIds.length);
  assert.deepEqual(found!.events, anew!.events);
}

function run(engine: EnginePort, request: EngineRequest): Promise<{ cachedTokens: number; events: EngineEvent[] }> {
  const { promise, resolve } = Promise.withResolvers<{ cachedTokens: number; events: EngineEvent[] }>();
  let cachedTokens = 0;
  const events: EngineEvent[] = [];
  engine.submit(request, (event) => {
    if (event.type === "started") cachedTokens = event.cachedTokens;
    if (event.type === "tokens") events.push(event);
    if (event.type === "end") resolve({ cachedTokens, events });
  });
  return promise;
}

/** Parts of a prompt whose answers say `texts`, as a client sends them back. */
function promptOf(texts: readonly string[]): PromptPart[] {
  return texts.flatMap((text, i) => [
    { special: "<｜User｜>" },
    { text: `${i}?` },
    { special: "<｜Assistant｜>" },
    ...(text === "" ? [] : [{ text }]),
    { special: "<｜end▁of▁sentence｜>" },
  ]);
}

const memory = () => ConversationMemory.inMemory().tokens;
const someText = fc.oneof(
  fc.string({ unit: "binary", maxLength: 40 }),
  fc
    .array(fc.constantFrom(" the", "cat", "\n\n", "  ", "é", "先", "🙂", "<think>", "1.0"), { maxLength: 20 })
    .map((w) => w.join("")),
);
/** Answers and the splitting of each. */
const answers = fc.array(fc.tuple(someText, fc.nat()), { minLength: 1, maxLength: 5 });

describe("the history of tokens", () => {
  /** Remembers a conversation turn by turn; gives the ids that the last turn left. */
  async function converse(history: TokenHistory, namespace: string, turns: readonly (readonly [string, number])[]) {
    let computed: readonly number[] = [];
    for (const [i, [text, seed]] of turns.entries()) {
      const given = turns.slice(0, i).map(([before]) => before);
      const asked = [...promptOf(given), { special: "<｜User｜>" }, { text: `${i}?` }, { special: "<｜Assistant｜>" }];
      const promptIds = await history.encode(namespace, asked, tokenizer);
      assert.deepEqual(promptIds.slice(0, computed.length), computed, "a turn goes on from what was computed");
      const answerIds = [...splitAnyhow(text, randomNumbers(seed)), eos];
      history.remember(namespace, { promptIds, answerIds, stopString: undefined }, tokenizer);
      computed = [...promptIds, ...answerIds];
    }
    return computed;
  }

  test("gives every turn as it was computed, whatever its tokens were; others of the server get canonical tokens", () =>
    fc.assert(
      fc.asyncProperty(answers, async (given) => {
        const turns = given.map(([text, seed]) => [text.toWellFormed(), seed] as const);
        const history = memory();
        const computed = await converse(history, "a", turns);
        const parts = promptOf(turns.map(([text]) => text));
        assert.deepEqual(await history.encode("a", parts, tokenizer), computed);
        assert.deepEqual(await history.encode("b", parts, tokenizer), encodePrompt({ parts }, tokenizer));
      }),
      { numRuns: 300 },
    ));

  test("of text that differs from what was generated has ids of that text, and no special token in it", () =>
    fc.assert(
      fc.asyncProperty(answers, someText, fc.nat(60), async (given, other, cut) => {
        const turns = given.map(
          ([text, seed]) => [`${text.toWellFormed()}<｜User｜>${text.toWellFormed()}`, seed] as const,
        );
        const history = memory();
        await converse(history, "a", turns.slice(0, 1));
        for (const text of [`${turns[0]![0].slice(0, cut)}${other}`, turns[0]![0], `${turns[0]![0].trim()}`]) {
          const parts: PromptPart[] = [{ special: "<｜User｜>" }, { text: "0?" }, { special: "<｜Assistant｜>" }];
          const ids = await history.encode("a", [...parts, { text: text.toWellFormed() }], tokenizer);
          const own = ids.slice(encodePrompt({ parts }, tokenizer).length);
          assert.equal(tokenizer.decode(own), text.toWellFormed());
          assert.ok(!own.some((id) => tokenizer.isAdded(id)));
        }
      }),
      { numRuns: 300 },
    ));

  const before = [{ special: "<｜User｜>" }, { text: "0?" }, { special: "<｜Assistant｜>" }];
  const promptIds = encodePrompt({ parts: before }, tokenizer);
  const answerIds = splitAnyhow("The little cat went home.\n\nEND and more", randomNumbers(4));

  test("knows an answer whose white space a client cut off, or that a stop string ended", async () => {
    const history = memory();
    history.remember("a", { promptIds, answerIds, stopString: "END" }, tokenizer);
    for (const text of ["The little cat went home.\n\n", "The little cat went home."]) {
      const ids = await history.encode("a", [...before, { text }], tokenizer);
      assert.equal(tokenizer.decode(ids.slice(promptIds.length)), text);
      const known = ids.findIndex((id, i) => id !== [...promptIds, ...answerIds][i]);
      assert.ok(tokenizer.decode(answerIds.slice(0, known - promptIds.length)).length >= text.length - 6, text);
    }
  });

  test("lets others have their turn while a long prompt, or one of many parts, is encoded", async () => {
    const many = Array.from(
      { length: 20_000 },
      (_, i): PromptPart => (i % 2 === 0 ? { special: "<｜User｜>" } : { text: "hi" }),
    );
    for (const [parts, turns] of [
      [[{ text: story.repeat(10_000) }], 10],
      [many, 10],
    ] as const) {
      let others = 0;
      const turn = () => {
        others++;
        pending = setImmediate(turn);
      };
      let pending = setImmediate(turn);
      assert.deepEqual(await memory().encode("a", parts, tokenizer), encodePrompt({ parts }, tokenizer));
      clearImmediate(pending);
      assert.ok(others >= turns, `${others} turns`);
    }
  });

  test("takes an answer to one image for no answer to another", async () => {
    const history = memory();
    const [one, other] = ["a", "b"].map((digit) => contentIds(digit.repeat(64), 6));
    const place = tokenizer.tokenId("<｜User｜>")!;
    const placing = (image: readonly number[]) => (id: number) => (id === place ? image : [id]);
    const asked = await history.encode("a", before, tokenizer, placing(one!));
    history.remember("a", { promptIds: asked, answerIds, stopString: undefined }, tokenizer);
    const parts = [...before, { text: tokenizer.decode(answerIds) }];
    assert.deepEqual(await history.encode("a", parts, tokenizer, placing(one!)), [...asked, ...answerIds]);
    const ofOther = await history.encode("a", parts, tokenizer, placing(other!));
    assert.deepEqual(ofOther, encodePrompt({ parts }, tokenizer).flatMap(placing(other!)));
  });

  test("is right or canonical after a restart, whatever became of its files", () =>
    inDirectory(async (directory) => {
      const random = randomNumbers(8);
      const written = await ConversationMemory.open(directory);
      const texts = Array.from({ length: 40 }, (_, i) => `Answer ${i}: ${story}`);
      const computed: number[][] = [];
      for (const [i, text] of texts.entries()) {
        const prompt = [...promptIds, ...tokenizer.encode(`${i}`), tokenizer.tokenId("<think>")!];
        const ids = splitAnyhow(text, random);
        written.tokens.remember("a", { promptIds: prompt, answerIds: ids, stopString: undefined }, tokenizer);
        computed.push([...prompt, ...ids]);
      }
      await written.close();
      const file = join(directory, readdirSync(directory).find((name) => name.endsWith(".v4k"))!);
      const whole = readFileSync(file);
      for (const isDamaged of [false, true]) {
        if (isDamaged) for (let i = 0; i < 60; i++) whole[Math.floor(random() * whole.length)]! ^= 1 << (i % 8);
        writeFileSync(file, whole);
        const read = await ConversationMemory.open(directory);
        let found = 0;
        for (const [i, text] of texts.entries()) {
          const parts = [...before, { text: `${i}` }, { special: "<think>" }, { text }];
          const ids = await read.tokens.encode("a", parts, tokenizer);
          const isFound = ids.length === computed[i]!.length;
          assert.deepEqual(ids, isFound ? computed[i] : encodePrompt({ parts }, tokenizer));
          found += Number(isFound);
        }
        assert.ok(isDamaged ? found < texts.length : found === texts.length, `${found} found`);
        await read.close();
      }
    }));
});
