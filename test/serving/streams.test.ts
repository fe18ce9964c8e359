/** Server-sent events: exact, kept alive, bounded for readers that are slow, and over when the client is. */
import assert from "node:assert/strict";
import { connect } from "node:net";
import { describe, test } from "node:test";
import { KeepAlive } from "../../src/server/http/keep-alive.ts";
import type { Route } from "../../src/server/route.ts";
import { ScriptedEngine } from "./scripted-engine.ts";
import { postTokens, rawRequest, startGateway } from "./start-gateway.ts";
import { expectedTokens, readTokens, until } from "./start-server.ts";

const head = (path: string, length: number) =>
  `POST ${path} HTTP/1.1\r\nhost: 127.0.0.1\r\ncontent-type: application/json\r\ncontent-length: ${length}\r\n\r\n`;

describe("a stream", () => {
  test("carries every token once and in order, a hundred at a time", async () => {
    await using server = await startGateway();
    const answers = Array.from({ length: 100 }, async (_, i) =>
      readTokens(await postTokens(server.url, { seed: i, max: 30 + i, stream: true })),
    );
    for (const [i, { ids, end }] of (await Promise.all(answers)).entries()) {
      assert.deepEqual(ids, expectedTokens(i, 30 + i));
      assert.equal(end?.event, "end");
    }
  });

  test("has the headers that proxies need", async () => {
    await using server = await startGateway();
    const answer = await postTokens(server.url, { max: 1, stream: true });
    await answer.text();
    assert.equal(answer.headers.get("content-type"), "text/event-stream; charset=utf-8");
    assert.equal(answer.headers.get("x-accel-buffering"), "no");
    assert.equal(answer.headers.get("cache-control"), "no-store");
  });

  test("that says nothing is kept alive", async () => {
    const engine = new ScriptedEngine();
    await using server = await startGateway({ silenceMs: 20 }, engine);
    const answer = await postTokens(server.url, { max: 1, stream: true });
    const text = answer.text();
    await new Promise((resolve) => setTimeout(resolve, 150));
    engine.step();
    engine.step();
    assert.match(await text, /^: ping\n\n(: ping\n\n)+data: /);
  });

  test("is over for the engine as soon as the client is gone", async () => {
    const engine = new ScriptedEngine({ stepMs: 1 });
    await using server = await startGateway({}, engine);
    const body = JSON.stringify({ max: 90_000, stream: true });
    const socket = connect(server.port, "127.0.0.1");
    socket.write(head("/v1/tokens", body.length) + body);
    await new Promise((resolve) => socket.once("data", resolve));
    assert.equal(engine.running.length, 1);
    socket.destroy();
    await until(() => engine.running.length === 0);
    await until(() => server.log.length > 0);
    assert.equal((JSON.parse(server.log[0]!) as { fault: string }).fault, "closed");
  });

  test("of a client that does not read is congested, then cut", async () => {
    const seen = { congested: false, aborted: false };
    const flood: Route = {
      method: "POST",
      path: "/flood",
      scope: "infer",
      errors: "plain",
      async handle(call) {
        const stream = call.openStream();
        while (!call.signal.aborted) {
          stream.send("x".repeat(10_000));
          seen.congested ||= stream.isCongested;
          await new Promise((resolve) => setImmediate(resolve));
        }
        seen.aborted = true;
        assert.equal(stream.isCongested, true);
        stream.send("after the end");
        stream.end();
      },
    };
    await using server = await startGateway({ routes: [flood] });
    const socket = connect(server.port, "127.0.0.1");
    socket.pause();
    socket.on("error", () => undefined);
    socket.write(`${head("/flood", 2)}{}`);
    await until(() => seen.aborted);
    assert.equal(seen.congested, true);
    socket.destroy();
    await until(() => server.log.length > 0);
    assert.equal((JSON.parse(server.log[0]!) as { fault: string }).fault, "cut");
    assert.match(await (await fetch(`${server.url}/metrics`)).text(), /freehold_streams_cut_total 1/);
  });

  test("that fails half way ends with an error event, the whole answer well formed", async () => {
    const failing: Route = {
      method: "POST",
      path: "/v1/messages",
      scope: "infer",
      errors: "anthropic",
      async handle(call) {
        call.openStream().send("line one\nline two", "piece");
        throw new Error("secret inside");
      },
    };
    await using server = await startGateway({ routes: [failing] });
    const answer = await rawRequest(
      server.port,
      `${head("/v1/messages", 2).replace("host:", "connection: close\r\nhost:")}{}`,
    );
    assert.match(answer, /event: piece\ndata: line one\ndata: line two\n\n/);
    assert.match(answer, /event: error\ndata: \{"type":"error","error":\{"type":"api_error"/);
    assert.ok(answer.endsWith("0\r\n\r\n"), "the last chunk");
    assert.doesNotMatch(answer, /secret/);
  });
});

describe("the keep-alive timer", () => {
  test("pings what was silent for a second, by its own clock", () => {
    let now = 0;
    using keepAlive = new KeepAlive({ clock: () => now });
    const pings: number[] = [];
    const stream = { lastWriteMs: 0, ping: () => void pings.push(now) };
    keepAlive.add(stream);
    for (now = 0; now < 3000; now += 250) {
      keepAlive.sweep();
      if (pings.at(-1) === now) stream.lastWriteMs = now;
    }
    assert.deepEqual(pings, [1000, 2000]);
    keepAlive.remove(stream);
    now = 9000;
    keepAlive.sweep();
    assert.equal(pings.length, 2);
  });
});
