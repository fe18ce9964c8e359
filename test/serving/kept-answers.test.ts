/** Requests that are sent again with their Idempotency-Key, and streams that go on where they were cut. */
import assert from "node:assert/strict";
import { describe, test } from "node:test";
import { Keyring, makeKey } from "../../src/server/keys.ts";
import type { Deadlines } from "../../src/server/limits/call-engine.ts";
import { commands, ScriptedEngine } from "./scripted-engine.ts";
import { postTokens, type RunningGateway, startGateway } from "./start-gateway.ts";
import { expectedTokens, until } from "./start-server.ts";

const limits = { timeout: 20_000 };

/** Steps are made by the test alone. */
const byHand = () => new ScriptedEngine({ stepMs: 0 });

const withKey = (key: string, more: Record<string, string> = {}) => ({ headers: { "idempotency-key": key, ...more } });

/** The answer, whose head comes with the first token. */
async function sendAndStep(engine: ScriptedEngine, send: () => Promise<Response>): Promise<Response> {
  const answer = send();
  await until(() => engine.status.waiting === 1);
  engine.step();
  return answer;
}

async function codeOf(answer: Response): Promise<readonly [number, string]> {
  return [answer.status, ((await answer.json()) as { error: { code: string } }).error.code];
}

interface KeptEvent {
  readonly id: number;
  readonly data: string;
}

/** Reads events until there are so many, or to the end; then the client goes away. */
async function readEvents(answer: Response, most = Number.POSITIVE_INFINITY): Promise<KeptEvent[]> {
  const events: KeptEvent[] = [];
  let rest = "";
  for await (const text of answer.body!.pipeThrough(new TextDecoderStream())) {
    const frames = (rest + text).split("\n\n");
    rest = frames.pop()!;
    for (const frame of frames) {
      const [, id, data] = /^id: (\d+)\n(?:event: .*\n)?data: (.*)$/.exec(frame) ?? [];
      if (data !== undefined) events.push({ id: Number(id), data });
      if (events.length >= most) return events;
    }
  }
  return events;
}

const idsOf = (events: readonly KeptEvent[]) =>
  events.flatMap(({ data }) => {
    const value = JSON.parse(data) as number[] | object;
    return Array.isArray(value) ? (value as number[]) : [];
  });

/** Time that passes when the test says so. */
class Clock implements Deadlines {
  #now = 0;
  readonly #waiting = new Set<{ at: number; then: () => void }>();
  nowMs = () => this.#now;
  after(ms: number, then: () => void): () => void {
    const one = { at: this.#now + ms, then };
    this.#waiting.add(one);
    return () => void this.#waiting.delete(one);
  }
  pass(ms: number): void {
    this.#now += ms;
    for (const one of [...this.#waiting]) {
      if (one.at > this.#now) continue;
      this.#waiting.delete(one);
      one.then();
    }
  }
}

describe("a request with an Idempotency-Key", limits, () => {
  test("is computed once, however often it is sent", async () => {
    await using server = await startGateway();
    const first = await postTokens(server.url, { seed: 1, max: 5 }, withKey("a"));
    assert.equal(first.headers.get("idempotent-replayed"), null);
    const second = await postTokens(server.url, { seed: 1, max: 5 }, withKey("a"));
    assert.equal(second.headers.get("idempotent-replayed"), "true");
    assert.equal(second.headers.get("content-type"), first.headers.get("content-type"));
    assert.notEqual(second.headers.get("x-request-id"), first.headers.get("x-request-id"));
    assert.deepEqual([await first.json(), await second.json()], Array(2).fill({ ids: expectedTokens(1, 5) }));
    assert.equal(server.engine.status.counters.generatedTokens, 5);
    await (await postTokens(server.url, { seed: 1, max: 5 }, withKey("b"))).json();
    assert.equal(server.engine.status.counters.generatedTokens, 10, "another key is another request");
  });

  test("joins the first one while that runs", async () => {
    const engine = byHand();
    await using server = await startGateway({}, engine);
    const answers = [1, 2, 3].map(() => postTokens(server.url, { max: 4 }, withKey("a")));
    await until(() => engine.status.waiting === 1 && server.gateway.openStreams === 2);
    for (let i = 0; i < 4; i++) engine.step();
    for (const answer of answers) assert.deepEqual(await (await answer).json(), { ids: expectedTokens(0, 4) });
    assert.equal(engine.status.counters.generatedTokens, 4);
  });

  test("goes on when its client is lost, so that sending it again gets the answer", async () => {
    const engine = byHand();
    await using server = await startGateway({}, engine);
    const gone = new AbortController();
    const lost = postTokens(server.url, { max: 6 }, { ...withKey("a"), signal: gone.signal });
    await until(() => engine.status.waiting === 1);
    engine.step();
    gone.abort();
    await assert.rejects(lost);
    await until(() => server.log.some((line) => /"fault":"closed"/.test(line)));
    assert.equal(engine.running.length, 1, "it still runs");
    for (let i = 0; i < 6; i++) engine.step();
    const again = await postTokens(server.url, { max: 6 }, withKey("a"));
    assert.deepEqual(await again.json(), { ids: expectedTokens(0, 6) });
    assert.equal(engine.status.counters.generatedTokens, 6);
  });

  test("ends when its client does not come back, and is computed anew then", async () => {
    const [engine, clock] = [byHand(), new Clock()];
    await using server = await startGateway({ deadlines: clock, keep: { absenceMs: 1000 } }, engine);
    const gone = new AbortController();
    const lost = postTokens(server.url, { max: 6 }, { ...withKey("a"), signal: gone.signal });
    await until(() => engine.status.waiting === 1);
    engine.step();
    gone.abort();
    await assert.rejects(lost);
    await until(() => server.log.length > 0);
    clock.pass(999);
    assert.equal(engine.running.length, 1);
    clock.pass(1);
    await until(() => engine.running.length === 0);
    const again = postTokens(server.url, { max: 2 }, withKey("a"));
    await until(() => engine.status.waiting === 1);
    for (let i = 0; i < 2; i++) engine.step();
    assert.deepEqual(await (await again).json(), { ids: expectedTokens(0, 2) });
  });

  test("with another body or path is refused, whether the first one runs or is done", async () => {
    await using server = await startGateway();
    await (await postTokens(server.url, { max: 2 }, withKey("a"))).json();
    const other = await postTokens(server.url, { max: 3 }, withKey("a"));
    assert.deepEqual(await codeOf(other), [422, "idempotency-key-reused"]);
    const headers = { "content-type": "application/json", ...withKey("a").headers };
    const body = JSON.stringify({ max: 2 });
    const elsewhere = await fetch(`${server.url}/v1/messages`, { method: "POST", headers, body });
    assert.equal(elsewhere.status, 422);
    for (const key of ["", "x".repeat(256)])
      assert.deepEqual(await codeOf(await postTokens(server.url, { max: 1 }, withKey(key))), [400, "idempotency-key"]);
  });

  test("is its API key's own: others with the same one get answers of their own", async () => {
    const [one, two] = ["one", "two"].map((name) => makeKey({ name, scopes: ["infer"] }));
    const keyring = new Keyring({ version: 1, keys: [one!.record, two!.record] });
    await using server = await startGateway({ keyring });
    const ask = (key: string, max: number) =>
      postTokens(server.url, { max }, withKey("a", { authorization: `Bearer ${key}` }));
    assert.deepEqual(await (await ask(one!.key, 2)).json(), { ids: expectedTokens(0, 2) });
    assert.deepEqual(await (await ask(two!.key, 3)).json(), { ids: expectedTokens(0, 3) });
    assert.equal((await ask(one!.key, 3)).status, 422);
  });

  test("that failed is tried again", async () => {
    await using server = await startGateway();
    for (const stream of [false, true]) {
      const ask = (tokens: number[]) => postTokens(server.url, { tokens, max: 3, stream }, withKey(`a${stream}`));
      const failing = await ask([commands.fail, 1]);
      assert.match(await failing.text(), /The logits are not numbers/);
      // Another body would be refused if the failure were kept.
      assert.equal((await ask([])).status, 200);
    }
  });

  test("is forgotten after its time, and when others need the room", async () => {
    const clock = new Clock();
    await using server = await startGateway({ deadlines: clock, keep: { retentionMs: 5000, totalBytes: 4000 } });
    const ask = async (key: string) => {
      const answer = await postTokens(server.url, { max: 20 }, withKey(key));
      await answer.text();
      return answer.headers.has("idempotent-replayed");
    };
    assert.deepEqual([await ask("a"), await ask("a")], [false, true]);
    clock.pass(4999);
    assert.equal(await ask("a"), true);
    clock.pass(1);
    assert.equal(await ask("a"), false);
    for (let i = 0; i < 20; i++) assert.equal(await ask(`other ${i}`), false);
    assert.equal(await ask("a"), false, "the oldest made room");
    assert.equal(await ask("other 19"), true);
  });

  test("is answered also where nothing may be kept", async () => {
    await using server = await startGateway({ keep: { totalBytes: 0 } });
    for (const stream of [false, true, false]) {
      const answer = await postTokens(server.url, { seed: 1, max: 3, stream }, withKey("a"));
      assert.equal(answer.headers.has("idempotent-replayed"), false);
      if (stream) assert.deepEqual(idsOf(await readEvents(answer)), expectedTokens(1, 3));
      else assert.deepEqual(await answer.json(), { ids: expectedTokens(1, 3) });
    }
  });

  test("and a conversation of the same name are two", async () => {
    await using server = await startGateway();
    await (await postTokens(server.url, { max: 2 }, withKey("conversation a"))).json();
    assert.equal((await fetch(`${server.url}/v1/stream?conv_id=a`)).status, 404);
  });

  test("whose answer is too long to keep is answered all the same, and not joined", async () => {
    await using server = await startGateway({ keep: { answerBytes: 2000 } });
    const ask = () => postTokens(server.url, { max: 400, stream: true }, withKey("a"));
    assert.deepEqual(idsOf(await readEvents(await ask())), expectedTokens(0, 400));
    assert.equal((await ask()).headers.get("idempotent-replayed"), null);
  });
});

describe("a stream with an Idempotency-Key", limits, () => {
  test("has numbered events; others have none", async () => {
    await using server = await startGateway();
    const events = await readEvents(await postTokens(server.url, { max: 5, stream: true }, withKey("a")));
    assert.deepEqual(
      events.map(({ id }) => id),
      [1, 2, 3, 4, 5, 6],
    );
    assert.doesNotMatch(await (await postTokens(server.url, { max: 5, stream: true })).text(), /^id:/m);
  });

  test("that was cut goes on behind the last event, token by token the same, also before its end", async () => {
    const engine = byHand();
    await using server = await startGateway({}, engine);
    const ask = (after?: number) =>
      postTokens(
        server.url,
        { seed: 3, max: 30, stream: true },
        withKey("a", after === undefined ? {} : { "last-event-id": String(after) }),
      );
    const first = ask();
    await until(() => engine.status.waiting === 1);
    for (let i = 0; i < 10; i++) engine.step();
    const seen = await readEvents(await first, 10);
    await until(() => server.log.length === 1);
    for (let i = 0; i < 5; i++) engine.step(); // while nobody listens
    const more = ask(seen.at(-1)!.id);
    const rest = more.then((answer) => readEvents(answer));
    await more;
    for (let i = 0; i < 15; i++) engine.step();
    assert.deepEqual(idsOf([...seen, ...(await rest)]), expectedTokens(3, 30));
    assert.deepEqual(idsOf(await readEvents(await ask(25))), expectedTokens(3, 30).slice(25));
    assert.deepEqual(idsOf(await readEvents(await ask(0))), expectedTokens(3, 30));
    assert.equal(engine.status.counters.generatedTokens, 30);
  });

  test("refuses events that it has not, and says when it is gone", async () => {
    const clock = new Clock();
    await using server = await startGateway({ deadlines: clock, keep: { retentionMs: 1000 } });
    const ask = (after: string, key = "a") =>
      postTokens(server.url, { max: 2, stream: true }, withKey(key, { "last-event-id": after }));
    assert.deepEqual(await codeOf(await ask("1")), [410, "stream-gone"]);
    await readEvents(await postTokens(server.url, { max: 2, stream: true }, withKey("a")));
    for (const wrong of ["4", "-1", "x", "1e3"])
      assert.deepEqual(await codeOf(await ask(wrong)), [400, "last-event-id"]);
    assert.equal((await ask("3")).status, 200);
    const without = await postTokens(server.url, { max: 2, stream: true }, { headers: { "last-event-id": "1" } });
    assert.deepEqual(await codeOf(without), [400, "last-event-id"]);
    clock.pass(1000);
    assert.deepEqual(await codeOf(await ask("1")), [410, "stream-gone"]);
  });

  test("can be read by the id of its conversation, which a page knows that was loaded again", async () => {
    const engine = byHand();
    await using server = await startGateway({}, engine);
    const id = "chat 1::ggml-org/some-model:Q8_0";
    const query = `conv_id=${encodeURIComponent(id)}`;
    const conversation = { headers: { "x-conversation-id": id } };
    const first = postTokens(server.url, { seed: 3, max: 6, stream: true }, conversation);
    await until(() => engine.status.waiting === 1);
    for (let i = 0; i < 3; i++) engine.step();
    assert.deepEqual(idsOf(await readEvents(await first, 3)), expectedTokens(3, 3));
    const reads = [0, 2].map((from) => fetch(`${server.url}/v1/stream?${query}&from=${from}`));
    const [whole, rest] = (await Promise.all(reads)).map((answer) => readEvents(answer));
    for (let i = 0; i < 3; i++) engine.step();
    assert.deepEqual(idsOf(await whole!), expectedTokens(3, 6));
    assert.deepEqual(idsOf(await rest!), expectedTokens(3, 6).slice(2));
    const byBrowser = await fetch(`${server.url}/v1/stream?${query}`, { headers: { "last-event-id": "5" } });
    assert.deepEqual(idsOf(await readEvents(byBrowser)), expectedTokens(3, 6).slice(5));

    // The next turn takes its place; stopping it ends it.
    const next = await sendAndStep(engine, () =>
      postTokens(server.url, { seed: 4, max: 90, stream: true }, conversation),
    );
    const again = await fetch(`${server.url}/v1/stream?${query}`);
    const stopped = await fetch(`${server.url}/v1/stream?${query}`, { method: "DELETE" });
    assert.equal(stopped.status, 204);
    for (const answer of [next, again]) assert.match(await answer.text(), /event: (error|end)/);
    assert.equal(engine.running.length, 0);
    assert.deepEqual(await codeOf(await fetch(`${server.url}/v1/stream?${query}`)), [404, "stream-gone"]);
    assert.equal((await fetch(`${server.url}/v1/stream?${query}`, { method: "DELETE" })).status, 204);
    assert.equal((await fetch(`${server.url}/v1/stream`)).status, 400);
  });

  test("is kept once and read whole by eight clients at a time", async () => {
    await using server = await startGateway({ keep: { answerBytes: 64 << 20 } }, new ScriptedEngine({ stepMs: 1 }));
    const body = { max: 3000, stream: true };
    const first = await postTokens(server.url, body, withKey("a"));
    await first.text();
    const answers = await Promise.all(Array.from({ length: 8 }, () => postTokens(server.url, body, withKey("a"))));
    for (const answer of answers) assert.deepEqual(idsOf(await readEvents(answer)), expectedTokens(0, 3000));
  });

  test("ends with an error event when the server stops", async () => {
    const engine = byHand();
    const server: RunningGateway = await startGateway({}, engine);
    const first = postTokens(server.url, { max: 9, stream: true }, withKey("a"));
    await until(() => engine.status.waiting === 1);
    engine.step();
    const second = await postTokens(server.url, { max: 9, stream: true }, withKey("a"));
    const texts = Promise.all([(await first).text(), second.text()]);
    await server.gateway.drain(0);
    for (const text of await texts) assert.match(text, /event: error\ndata: .*stopping/);
    await server[Symbol.asyncDispose]();
  });
});
