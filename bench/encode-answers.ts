/**
 * How many tokens a second one event loop turns into events of each dialect: `node bench/encode-answers.ts`.
 * An engine without a model hands over tokens one at a time; everything from there to the text of the event is counted, the
 * socket is not.
 */
import { readFileSync } from "node:fs";
import { join } from "node:path";
import type { EnginePort } from "../src/engine/batching/engine-port.ts";
import { embeddedModel } from "../src/engine/load-model.ts";
import { parseJson } from "../src/json/parse-json.ts";
import { apiRoutes } from "../src/server/api/routes.ts";
import type { Call, Services } from "../src/server/route.ts";
import { Tokenizer } from "../src/tokenizer/tokenizer.ts";

const tokenizer = Tokenizer.fromJson(JSON.parse(readFileSync(join(embeddedModel, "tokenizer.json"), "utf8")));
const tokens = 20_000;
const runs = 7;
const text = "Once upon a time there was a little fox, and it liked the warm sun. ";
const words = tokenizer.encode(text.repeat(tokens / 10));
const ids = [tokenizer.tokenId("</think>")!, ...words.slice(0, tokens)];

const engine: EnginePort = {
  info: {
    name: "bench",
    vocabSize: tokenizer.vocabSize,
    contextLength: 1_000_000,
    bosTokenId: 0,
    eosTokenIds: [1],
    addsBeginOfSequence: false,
    defaults: {},
    device: "none",
    kernels: "none",
    threads: 0,
    parameters: 0,
    loadSeconds: 0,
  },
  submit(request, listener) {
    const top = (id: number) => [{ id, logprob: -1 }];
    const { logprobs } = request;
    listener({ type: "started", cachedTokens: 0 });
    for (const id of ids) {
      listener({
        type: "tokens",
        ids: [id],
        ...(logprobs === undefined ? {} : { logprobs: [{ id, logprob: -1, top: top(id) }] }),
      });
    }
    const seconds = { queue: 0, prefill: 0, decode: 0 };
    const usage = {
      promptTokens: 0,
      cachedTokens: 0,
      generatedTokens: 0,
      draftedTokens: 0,
      acceptedTokens: 0,
      seconds,
    };
    listener({ type: "end", finish: "length", usage });
  },
  cancel() {},
  get status(): never {
    throw new Error("Nobody asks for it here");
  },
};

const services: Services = {
  engine,
  requireInfo: () => engine.info!,
  tokenizer,
  dialect: "v4",
  version: "0",
  now: () => 0,
};

const messages = [{ role: "user", content: "Hi" }];
const thinking = { type: "enabled" };
const cases = [
  { name: "chat", path: "/v1/chat/completions", body: { messages, stream: true } },
  {
    name: "chat, logprobs",
    path: "/v1/chat/completions",
    body: { messages, stream: true, logprobs: true, top_logprobs: 1 },
  },
  { name: "completions", path: "/v1/completions", body: { prompt: "Hi", stream: true, max_tokens: 1_000_000 } },
  { name: "responses", path: "/v1/responses", body: { input: "Hi", stream: true, store: false } },
  { name: "messages", path: "/v1/messages", body: { messages, stream: true, thinking, max_tokens: 1_000_000 } },
];

for (const { name, path, body } of cases) {
  const handle = apiRoutes().find((route) => route.path === path)!;
  const rates: number[] = [];
  let events = 0;
  for (let run = 0; run < runs; run++) {
    events = 0;
    const call: Call = {
      requestId: "r",
      url: new URL(`http://localhost${path}`),
      parameters: {},
      headers: {},
      body: parseJson(JSON.stringify(body)),
      key: "k",
      namespace: "n",
      priority: 1,
      signal: new AbortController().signal,
      admit() {},
      account() {},
      json() {},
      text() {},
      openStream: () => ({
        send(data, event) {
          // What a gateway writes to the socket.
          events += `${event === undefined ? "" : `event: ${event}\n`}data: ${data}\n\n`.length > 0 ? 1 : 0;
        },
        keepAliveWith() {},
        isCongested: false,
        end() {},
      }),
    };
    const started = performance.now();
    await handle.handle(call, services);
    rates.push(ids.length / ((performance.now() - started) / 1000));
  }
  const median = rates.sort((a, b) => a - b)[Math.floor(runs / 2)]!;
  console.log(`${name}: ${Math.round(median)} tokens/s (median of ${runs}; ${events} events)`);
}
