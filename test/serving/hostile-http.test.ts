/** Whatever bytes arrive: they are answered as stated, at once, and the next request is served. */
import assert from "node:assert/strict";
import { once } from "node:events";
import { connect } from "node:net";
import { after, before, describe, test } from "node:test";
import fc from "fast-check";
import { defaultBodyLimits } from "../../src/server/http/read-body.ts";
import { scriptedToken } from "./scripted-engine.ts";
import { postTokens, type RunningGateway, rawRequest, startGateway } from "./start-gateway.ts";

const json = "content-type: application/json";
const host = "host: 127.0.0.1";
const post = (headers: readonly string[], body: string | Buffer = "") => [
  `POST /v1/tokens HTTP/1.1\r\n${[host, "connection: close", ...headers].join("\r\n")}\r\n\r\n`,
  body,
];
const get = (headers: readonly string[], target = "/livez") =>
  `GET ${target} HTTP/1.1\r\n${headers.join("\r\n")}\r\n\r\n`;
const whole = (body: string | Buffer) => post([json, `content-length: ${Buffer.byteLength(body)}`], body);

interface Case {
  readonly name: string;
  readonly bytes: string | Buffer | readonly (string | Buffer)[];
  readonly status: number;
}

const cases: readonly Case[] = [
  { name: "a header of 1 MiB", bytes: get([host, `x: ${"a".repeat(2 ** 20)}`]), status: 431 },
  { name: "2,600 small headers", bytes: get([host, ...Array.from({ length: 2600 }, () => "a:b")]), status: 431 },
  { name: "101 headers", bytes: get([host, ...Array.from({ length: 100 }, (_, i) => `a${i}:b`)]), status: 431 },
  {
    name: "length and chunks at once",
    bytes: post([json, "content-length: 4", "transfer-encoding: chunked"], "0\r\n\r\n"),
    status: 400,
  },
  { name: "two lengths", bytes: post([json, "content-length: 2", "content-length: 3"], "{}"), status: 400 },
  { name: "a negative length", bytes: post([json, "content-length: -1"], "{}"), status: 400 },
  { name: "a length of words", bytes: post([json, "content-length: ten"], "{}"), status: 400 },
  { name: "bare line feeds", bytes: "GET /livez HTTP/1.1\nhost: 127.0.0.1\n\n", status: 400 },
  { name: "a NUL in a header", bytes: get([host, "x: a\0b"]), status: 400 },
  { name: "a folded header", bytes: get([host, "x: a\r\n b"]), status: 400 },
  { name: "no Host", bytes: get(["connection: close"]), status: 400 },
  { name: "two Hosts", bytes: get([host, "host: evil.example", "connection: close"]), status: 400 },
  { name: "the first bytes of TLS", bytes: Buffer.from("16030100c8010000c403037a", "hex"), status: 400 },
  { name: "HTTP/2's preface", bytes: "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", status: 400 },
  { name: "a bad chunk size", bytes: post([json, "transfer-encoding: chunked"], "zz\r\n{}\r\n0\r\n\r\n"), status: 400 },
  { name: "an unknown transfer encoding", bytes: post([json, "transfer-encoding: gzip"], "{}"), status: 400 },
  { name: "a compressed body", bytes: post([json, "content-encoding: gzip", "content-length: 2"], "{}"), status: 415 },
  { name: "a form", bytes: post(["content-type: text/plain", "content-length: 2"], "{}"), status: 415 },
  { name: "no content type", bytes: post(["content-length: 2"], "{}"), status: 415 },
  { name: "another charset", bytes: post([`${json}; charset=utf-16`, "content-length: 2"], "{}"), status: 415 },
  { name: "a declared length over the limit", bytes: post([json, "content-length: 99999999999"]), status: 413 },
  {
    name: "chunks over the limit",
    bytes: post(
      [json, "transfer-encoding: chunked"],
      `${(2 ** 20 + 1).toString(16)}\r\n"${"a".repeat(2 ** 20)}\r\n0\r\n\r\n`,
    ),
    status: 413,
  },
  { name: "JSON 100,000 deep", bytes: whole("[".repeat(100_000)), status: 400 },
  {
    name: "80,000 keys",
    bytes: whole(`{${Array.from({ length: 80_000 }, (_, i) => `"${i}":0`).join(",")}}`),
    status: 400,
  },
  { name: "a string without an end", bytes: whole(`{"a":"${"a".repeat(900_000)}`), status: 400 },
  { name: "no JSON", bytes: whole("{]"), status: 400 },
  { name: "an empty body", bytes: whole(""), status: 400 },
  { name: "wrong UTF-8", bytes: whole(Buffer.from([0x22, 0xc0, 0xaf, 0x22])), status: 400 },
  { name: "a NUL in JSON", bytes: whole('{"a":"\0"}'), status: 400 },
  {
    name: "a body of a GET",
    bytes: ["GET /livez HTTP/1.1\r\nhost: 127.0.0.1\r\ncontent-length: 5\r\n\r\n", "hello"],
    status: 400,
  },
  { name: "a method that the path does not take", bytes: get([host, "connection: close"], "/v1/tokens"), status: 405 },
  { name: "a path that does not exist", bytes: get([host, "connection: close"], "/v2/no"), status: 404 },
  { name: "a path with a wrong escape", bytes: get([host, "connection: close"], "/%zz"), status: 404 },
  { name: "an unknown method", bytes: "BREW /livez HTTP/1.1\r\nhost: 127.0.0.1\r\n\r\n", status: 400 },
  { name: "TRACE", bytes: "TRACE /livez HTTP/1.1\r\nhost: 127.0.0.1\r\nconnection: close\r\n\r\n", status: 405 },
  { name: "a foreign host name", bytes: get(["host: evil.example", "connection: close"]), status: 403 },
  { name: "a foreign origin", bytes: get([host, "origin: https://evil.example", "connection: close"]), status: 403 },
  { name: "an origin of null", bytes: get([host, "origin: null", "connection: close"]), status: 403 },
  { name: "another expectation", bytes: post([json, "expect: 200-maybe", "content-length: 2"], "{}"), status: 417 },
];

const good: readonly Case[] = [
  { name: "a BOM before the JSON", bytes: whole('\ufeff{"max":1}'), status: 200 },
  { name: "half a surrogate pair", bytes: whole('{"max":1,"x":"\\ud83d"}'), status: 200 },
  { name: "keys named __proto__", bytes: whole('{"__proto__":{"max":3},"max":1,"constructor":1}'), status: 200 },
  { name: "a number that no double holds", bytes: whole('{"max":1,"x":1e999999}'), status: 200 },
  { name: "a path that ends in a slash", bytes: get([host, "connection: close"], "/livez/"), status: 200 },
  { name: "a target in absolute form", bytes: get([host, "connection: close"], "http://127.0.0.1/livez"), status: 200 },
];

/** The most that a case may take: the median of so many tries, for other programs of the machine disturb single ones. */
const mostMs = 50;
const tries = 7;

describe("the gateway", () => {
  let server: RunningGateway;
  before(async () => {
    server = await startGateway({ body: { bytes: 2 ** 20, jsonValues: 50_000 } });
    await assertServes(server);
  });
  after(() => server[Symbol.asyncDispose]());

  for (const { name, bytes, status } of [...cases, ...good]) {
    test(`answers ${name} with ${status}, at once, and serves the next`, async () => {
      const took: number[] = [];
      for (let i = 0; i < tries; i++) {
        const started = performance.now();
        const answer = await firstAnswer(server.port, bytes);
        took.push(performance.now() - started);
        assert.match(answer, new RegExp(`^HTTP/1\\.1 ${status} `), answer.slice(0, 300));
        await assertServes(server);
      }
      const median = took.sort((a, b) => a - b)[Math.floor(tries / 2)]!;
      assert.ok(median < mostMs, `${median} ms`);
    });
  }

  test("answers others while it reads the largest JSON that it takes, and refuses one object more", async () => {
    await using large = await startGateway();
    const { jsonParts, jsonValues } = defaultBodyLimits;
    const most = jsonParts / 2 - 3; // an object and its key; the outermost, its keys and two lists
    const numbers = Array.from({ length: jsonValues - 2 * most - 10 }, (_, i) => i);
    const bodyOf = (objects: number) =>
      JSON.stringify({ max: 1, tokens: numbers, rest: Array.from({ length: objects }, () => ({ a: 1 })) });
    const order: string[] = [];
    const body = bodyOf(most);
    const head = `POST /v1/tokens HTTP/1.1\r\n${host}\r\n${json}\r\ncontent-length: ${body.length}\r\n\r\n`;
    const slow = connect(large.port, "127.0.0.1");
    const answered = once(
      slow.on("data", () => order.push("large")),
      "data",
    );
    await new Promise((sent) => slow.write(head + body.slice(0, -1), sent));
    await assertServes(large); // what came so far is read
    slow.write(body.slice(-1));
    await assertServes(large);
    order.push("small");
    const [answer] = await answered;
    slow.destroy();
    assert.match(String(answer), /^HTTP\/1\.1 200 /);
    assert.deepEqual(order, ["small", "large"]);
    const refused = await fetch(`${large.url}/v1/tokens`, {
      method: "POST",
      headers: { "content-type": "application/json" },
      body: bodyOf(most + 1),
    });
    assert.equal(refused.status, 400);
    assert.match(await refused.text(), /more than 65536 objects, lists and keys/);
  });

  test("reads pipelined requests one after the other", async () => {
    const one = "GET /livez HTTP/1.1\r\nhost: 127.0.0.1\r\n\r\n";
    const last = "GET /livez HTTP/1.1\r\nhost: 127.0.0.1\r\nconnection: close\r\n\r\n";
    const answer = await rawRequest(server.port, one.repeat(50) + last);
    assert.equal(answer.match(/HTTP\/1\.1 200 OK/g)?.length, 51);
  });

  test("does not take the rest of a longer body for a request of another's", async () => {
    const answer = await rawRequest(
      server.port,
      post([json, "content-length: 2"], "{}GET /livez HTTP/1.1\r\nhost: x\r\n\r\n"),
    );
    assert.equal(answer.match(/HTTP\/1\.1 /g)?.length, 1, "connection: close ends it");
  });

  test("forgets a client that closes in the middle of its body", async () => {
    const socket = connect(server.port, "127.0.0.1");
    const [head] = post([json, "content-length: 100"]);
    socket.write(`${head}{`);
    socket.end();
    const closed = new Promise((resolve) => socket.once("close", resolve));
    socket.resume();
    await closed;
    await assertServes(server);
  });

  test("asks for a body only when it would take it", async () => {
    const expecting = (length: number) =>
      post([json, "expect: 100-continue", `content-length: ${length}`], length === 2 ? "{}" : "");
    assert.match(await rawRequest(server.port, expecting(2)), /^HTTP\/1\.1 100 Continue[\s\S]+HTTP\/1\.1 200/);
    const refused = await firstAnswer(server.port, expecting(2 ** 21));
    assert.match(refused, /^HTTP\/1\.1 413/);
  });

  test("says in Allow what a path takes, and answers OPTIONS with it", async () => {
    const refused = await fetch(`${server.url}/v1/tokens`);
    assert.equal(refused.status, 405);
    assert.equal(refused.headers.get("allow"), "POST, OPTIONS");
    assert.equal(((await refused.json()) as { error: { code: string } }).error.code, "method-not-allowed");
    assert.equal((await fetch(`${server.url}/v1/tokens`, { method: "OPTIONS" })).status, 204);
    const head = await fetch(`${server.url}/livez`, { method: "HEAD" });
    assert.deepEqual([head.status, await head.text()], [200, ""]);
  });

  test("answers unknown paths in the shape of the nearest API", async () => {
    const anthropic = (await (await fetch(`${server.url}/v1/messages/no`)).json()) as {
      type: string;
      request_id: string;
    };
    assert.equal(anthropic.type, "error");
    assert.match(anthropic.request_id, /^req_[0-9a-f]{32}$/);
    const openai = (await (await fetch(`${server.url}/v1/no`)).json()) as { error: { type: string; param: null } };
    assert.equal(openai.error.type, "invalid_request_error");
  });

  test("takes a harmless request id and replaces others", async () => {
    const idOf = async (id: string) =>
      (await fetch(`${server.url}/livez`, { headers: { "x-request-id": id } })).headers.get("x-request-id");
    assert.equal(await idOf("abc-1.2:3_4"), "abc-1.2:3_4");
    assert.match((await idOf("<script>"))!, /^req_/);
    assert.match((await idOf("a".repeat(129)))!, /^req_/);
  });

  test("survives any bytes", async () => {
    const method = fc.constantFrom("GET", "POST", "HEAD", "\0", "");
    const piece = fc.oneof(
      fc.constantFrom(
        "\r\n",
        "\r\n\r\n",
        "host: 127.0.0.1\r\n",
        "content-length: 3\r\n",
        "transfer-encoding: chunked\r\n",
        " HTTP/1.1",
        "/v1/tokens",
        "\n",
        ":",
      ),
      fc.uint8Array({ maxLength: 20 }).map((bytes) => Buffer.from(bytes).toString("latin1")),
    );
    const property = fc.asyncProperty(method, fc.array(piece, { maxLength: 12 }), async (start, pieces) => {
      await firstAnswer(server.port, Buffer.from(`${start} ${pieces.join("")}\r\n\r\n`, "latin1"), true);
    });
    await fc.assert(property, { numRuns: 300 });
    await assertServes(server);
  });
});

describe("a gateway with short time limits", () => {
  test("answers headers and bodies that never end with 408", async () => {
    await using server = await startGateway({ http: { headersTimeoutMs: 100, requestTimeoutMs: 300 } });
    const slowHeaders = rawRequest(server.port, "GET /livez HTTP/1.1\r\nhost: 127.0.0.1\r\nx: ");
    const slowBody = rawRequest(server.port, post([json, "content-length: 10"], "{"));
    assert.match(await slowHeaders, /^HTTP\/1\.1 408 /);
    assert.match(await slowBody, /^HTTP\/1\.1 408 /);
    await assertServes(server);
  });
});

/** The beginning of the answer; the connection is cut then. With `orSilence`, an end of our side without an answer is fine too. */
function firstAnswer(port: number, bytes: Case["bytes"], orSilence = false): Promise<string> {
  return new Promise((resolve, reject) => {
    const socket = connect(port, "127.0.0.1");
    let answer = "";
    const finish = () => {
      socket.destroy();
      resolve(answer);
    };
    socket.on("data", (chunk) => {
      answer += chunk.toString("latin1");
      finish();
    });
    socket.on("close", finish);
    socket.on("error", (error: NodeJS.ErrnoException) => {
      if (error.code !== "EPIPE" && error.code !== "ECONNRESET") reject(error);
    });
    for (const part of [bytes].flat()) socket.write(part);
    if (orSilence) socket.end();
  });
}

async function assertServes({ url }: RunningGateway): Promise<void> {
  const answer = await postTokens(url, { seed: 5, max: 3 });
  assert.equal(answer.status, 200);
  assert.deepEqual(await answer.json(), { ids: [0, 1, 2].map((i) => scriptedToken(5, i)) });
}
