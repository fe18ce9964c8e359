/** Who gets in, what they may do, and how much of it. */
import assert from "node:assert/strict";
import { describe, test } from "node:test";
import fc from "fast-check";
import { FormatError, UsageError } from "../../src/errors.ts";
import { HttpError } from "../../src/server/http-error.ts";
import { type KeyRecord, Keyring, makeKey, parseKeyFile } from "../../src/server/keys.ts";
import { Admission, defaultQueueLimits, type Ticket } from "../../src/server/limits/admission.ts";
import type { Deadlines } from "../../src/server/limits/call-engine.ts";
import { TokenBucket } from "../../src/server/limits/token-bucket.ts";
import { resolveServeConfig } from "../../src/server/serve-config.ts";
import { ScriptedEngine } from "./scripted-engine.ts";
import { postTokens, startGateway } from "./start-gateway.ts";

function keyring(...records: KeyRecord[]): Keyring {
  return new Keyring({ version: 1, keys: records });
}

const bearer = (key: string) => ({ headers: { authorization: `Bearer ${key}` } });

describe("keys", () => {
  test("open what their scopes say, in either header, and nothing else", async () => {
    const user = makeKey({ name: "user", scopes: ["infer"] });
    const admin = makeKey({ name: "admin", scopes: ["admin:read"] });
    const old = makeKey({ name: "old", scopes: ["infer"], expires: "2020-01-01T00:00:00Z" });
    await using server = await startGateway({ keyring: keyring(user.record, admin.record, old.record) });
    const statusOf = async (init: RequestInit) => (await postTokens(server.url, { max: 1 }, init)).status;
    assert.equal(await statusOf(bearer(user.key)), 200);
    assert.equal(await statusOf({ headers: { "x-api-key": user.key } }), 200);
    assert.equal(await statusOf(bearer(admin.key)), 403);
    assert.equal(await statusOf(bearer(old.key)), 401);
    assert.equal(await statusOf({}), 401);
    assert.equal(await statusOf(bearer(user.record.sha256)), 401);
    assert.equal((await fetch(`${server.url}/metrics`, bearer(admin.key))).status, 200);
    assert.equal((await fetch(`${server.url}/metrics`, bearer(user.key))).status, 403);
    assert.equal((await fetch(`${server.url}/readyz`)).status, 200);
    const refused = await postTokens(server.url, { max: 1 });
    assert.equal(refused.headers.get("www-authenticate"), "Bearer");
    assert.equal(((await refused.json()) as { error: { code: string } }).error.code, "invalid_api_key");
  });

  test("have a cache namespace of their own, unless they share one", () => {
    const [a, b, c, d] = [{}, {}, { shareCache: "team" }, { shareCache: "team" }].map((more, i) =>
      makeKey({ name: `key${i}`, scopes: ["infer"], ...more }),
    );
    const ring = keyring(a!.record, b!.record, c!.record, d!.record);
    const namespaceOf = ({ key }: { key: string }) => ring.authenticate({ "x-api-key": key }, "infer").namespace;
    const [of1, of2, of3, of4] = [a!, b!, c!, d!].map(namespaceOf);
    assert.equal(new Set([of1, of2, of3]).size, 3);
    assert.equal(of3, of4);
    assert.doesNotMatch(of1!, new RegExp(a!.record.sha256.slice(0, 16)));
  });

  test("are compared with every known key, whether one fits or not", () => {
    const keys = Array.from({ length: 5 }, (_, i) => makeKey({ name: `key${i}`, scopes: ["infer"] }));
    const ring = keyring(...keys.map(({ record }) => record));
    for (const [i, { key }] of keys.entries()) {
      assert.equal(ring.authenticate({ authorization: `bearer ${key}` }, "infer").name, `key${i}`);
    }
    const anything = fc.property(fc.string({ maxLength: 60 }), (text) => {
      assert.throws(() => ring.authenticate({ authorization: `Bearer ${text}` }, "infer"), HttpError);
      assert.throws(() => ring.authenticate({ authorization: text, "x-api-key": text }, "infer"), HttpError);
    });
    fc.assert(anything);
  });

  const wrong: readonly (readonly [string, string, RegExp])[] = [
    ["no JSON", "{", /not JSON/],
    ["a plain key in it", '{"version":1,"keys":[{"name":"a","key":"x","scopes":["infer"]}]}', /keys\.0/],
    [
      "an unknown scope",
      `{"version":1,"keys":[{"name":"a","sha256":"${"0".repeat(64)}","scopes":["root"]}]}`,
      /keys\.0\.scopes/,
    ],
    [
      "two of one name",
      `{"version":1,"keys":[${[1, 2].map(() => `{"name":"a","sha256":"${"0".repeat(64)}","scopes":["infer"]}`)}]}`,
      /called a/,
    ],
    ["another version", '{"version":2,"keys":[]}', /version/],
  ];
  for (const [name, text, message] of wrong) {
    test(`of a file with ${name} are refused, naming the place`, () => {
      const isRight = (error: unknown) => error instanceof FormatError && message.test(error.message);
      assert.throws(() => parseKeyFile(text, "keys.json"), isRight);
    });
  }

  test("are needed to listen beyond this machine", () => {
    const isRefusal = (error: unknown) => error instanceof UsageError && error.code === "keys-needed";
    assert.throws(() => resolveServeConfig({ host: "0.0.0.0" }), isRefusal);
    assert.throws(() => resolveServeConfig({ host: "::" }), isRefusal);
    for (const input of [
      { host: "0.0.0.0", insecure: true },
      { host: "::1" },
      { host: "0.0.0.0", keys: "k" },
      { unix: "/x" },
    ])
      assert.ok(resolveServeConfig(input));
  });
});

describe("admission", () => {
  const identity = { name: "a", namespace: "", priority: 1, scopes: [], limits: {} };

  test("never lets more wait than the bounds say, and forgets nothing (property)", () => {
    const step = fc.record({
      key: fc.integer({ min: 0, max: 3 }),
      tokens: fc.integer({ min: 0, max: 50 }),
      ends: fc.boolean(),
      starts: fc.boolean(),
    });
    const property = fc.property(fc.array(step, { maxLength: 200 }), (steps) => {
      let now = 0;
      const limits = {
        maxQueuedRequests: 8,
        maxQueuedTokens: 100,
        maxQueuedRequestsPerKey: 4,
        maxQueuedTokensPerKey: 60,
      };
      const admission = new Admission(limits, () => now);
      const open: Ticket[] = [];
      for (const { key, tokens, ends, starts } of steps) {
        now += 0.5;
        try {
          open.push(admission.admit({ ...identity, name: `key${key}` }, tokens));
        } catch (error) {
          assert.ok(error instanceof HttpError && error.status === 429);
          assert.ok(error.retryAfterSeconds! >= 1 && error.retryAfterSeconds! <= 120);
        }
        assert.ok(admission.waiting.requests <= 8 && admission.waiting.tokens <= 100);
        if (starts) open[0]?.started();
        if (ends) open.shift()?.finished(3);
      }
      for (const ticket of open) ticket.finished(0);
      assert.deepEqual(admission.waiting, { requests: 0, tokens: 0 });
    });
    fc.assert(property);
  });

  test("tells when to come again by how fast the queue empties", () => {
    let now = 0;
    const limits = { ...defaultQueueLimits, maxQueuedRequests: 10 };
    const admission = new Admission(limits, () => now);
    for (let i = 0; i < 40; i++) {
      const ticket = admission.admit(identity, 1);
      now += 2;
      ticket.started();
    }
    for (let i = 0; i < 10; i++) admission.admit(identity, 1);
    // One leaves every two seconds: half of ten are gone in ten.
    const comesAgain = (error: unknown) => error instanceof HttpError && Math.abs(error.retryAfterSeconds! - 10) <= 1;
    assert.throws(() => admission.admit(identity, 1), comesAgain);
  });

  test("takes one request longer than the token bound when nothing else waits", () => {
    const admission = new Admission({ ...defaultQueueLimits, maxQueuedTokens: 10 }, () => 0);
    const ticket = admission.admit(identity, 1000);
    assert.throws(() => admission.admit(identity, 1), HttpError);
    ticket.finished(0);
    admission.admit(identity, 1);
  });
});

describe("a token bucket", () => {
  test("gives its rate and no more over any time (property)", () => {
    const takes = fc.array(fc.tuple(fc.integer({ min: 1, max: 40 }), fc.integer({ min: 0, max: 20 })), {
      maxLength: 100,
    });
    const property = fc.property(takes, (steps) => {
      let now = 0;
      let taken = 0;
      const bucket = new TokenBucket(60, () => now);
      for (const [units, pause] of steps) {
        if (bucket.waitSeconds() === 0) {
          bucket.take(units);
          taken += units;
        }
        now += pause;
      }
      // A minute's reserve, one a second, and the last taker's debt.
      assert.ok(taken <= 60 + now + 40);
    });
    fc.assert(property);
  });

  test("says exactly when it is open again", () => {
    let now = 0;
    const bucket = new TokenBucket(60, () => now);
    bucket.take(69);
    assert.equal(bucket.waitSeconds(), 10);
    now = 10;
    assert.equal(bucket.waitSeconds(), 0);
  });
});

describe("a gateway with limits", () => {
  test("refuses what the queue does not hold with 429 and when to come again, and counts it", async () => {
    const engine = new ScriptedEngine({ maxRunning: 1 });
    await using server = await startGateway({ queue: { maxQueuedRequests: 3 } }, engine);
    const waiting = Array.from({ length: 3 }, () => postTokens(server.url, { max: 1 }));
    while (engine.status.waiting < 3) await new Promise((resolve) => setImmediate(resolve));
    const refused = await postTokens(server.url, { max: 1 });
    assert.equal(refused.status, 429);
    assert.equal(refused.headers.get("retry-after"), "10");
    assert.equal(((await refused.json()) as { error: { type: string } }).error.type, "rate_limit_error");
    for (let i = 0; i < 8; i++) engine.step();
    assert.deepEqual(
      (await Promise.all(waiting)).map(({ status }) => status),
      [200, 200, 200],
    );
    assert.match(
      await (await fetch(`${server.url}/metrics`)).text(),
      /freehold_refused_total\{reason="queue-requests"\} 1/,
    );
  });

  test("charges a key for tokens of prompts and answers", async () => {
    const { key, record } = makeKey({ name: "metered", scopes: ["infer"], limits: { tokensPerMinute: 40 } });
    await using server = await startGateway({ keyring: keyring(record) });
    assert.equal((await postTokens(server.url, { tokens: [0, 0, 0], max: 60 }, bearer(key))).status, 200);
    const refused = await postTokens(server.url, { max: 1 }, bearer(key));
    assert.equal(refused.status, 429);
    // 63 of 40 were taken: 24 are missing at 40 a minute.
    assert.ok(Math.abs(Number(refused.headers.get("retry-after")) - 36) <= 1);
  });

  test("ends a request that waits too long, with its own clock", async () => {
    const clock = new ManualDeadlines();
    const engine = new ScriptedEngine();
    await using server = await startGateway({ deadlines: clock, times: { queueMs: 1000, totalMs: 5000 } }, engine);
    const waiting = postTokens(server.url, { max: 5 });
    while (engine.status.waiting === 0) await new Promise((resolve) => setImmediate(resolve));
    clock.pass(999);
    assert.equal(engine.status.waiting, 1);
    clock.pass(2);
    const answer = await waiting;
    assert.match(JSON.stringify(await answer.json()), /took too long in the queue/);
    assert.equal(engine.status.waiting, 0);
    const running = postTokens(server.url, { max: 5000 });
    while (engine.status.waiting === 0) await new Promise((resolve) => setImmediate(resolve));
    engine.step();
    clock.pass(4000);
    assert.equal(engine.running.length, 1);
    clock.pass(1001);
    assert.match(JSON.stringify(await (await running).json()), /took too long in all/);
  });
});

class ManualDeadlines implements Deadlines {
  #now = 0;
  readonly #timers = new Set<{ readonly at: number; readonly then: () => void }>();

  nowMs(): number {
    return this.#now;
  }

  after(ms: number, then: () => void): () => void {
    const timer = { at: this.#now + ms, then };
    this.#timers.add(timer);
    return () => this.#timers.delete(timer);
  }

  pass(ms: number): void {
    this.#now += ms;
    for (const timer of [...this.#timers]) {
      if (timer.at > this.#now) continue;
      this.#timers.delete(timer);
      timer.then();
    }
  }
}
