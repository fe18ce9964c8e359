/** What operators see: health that means progress, metrics, logs without prompts, traces, an audit that shows tampering. */
import assert from "node:assert/strict";
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { createServer } from "node:http";
import type { AddressInfo } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { describe, test } from "node:test";
import type { EngineInfo, EnginePort, EngineStatus, EngramCounters } from "../../src/engine/batching/engine-port.ts";
import { FormatError } from "../../src/errors.ts";
import { AuditLog, verifyAudit } from "../../src/server/observability/audit-log.ts";
import { EngineProgress } from "../../src/server/observability/engine-progress.ts";
import { Metrics } from "../../src/server/observability/metrics.ts";
import { parseTraceparent, Tracer } from "../../src/server/observability/traces.ts";
import { emptyStatus } from "../../src/server/processes/engine-messages.ts";
import { scriptedInfo } from "./scripted-engine.ts";
import { postTokens, startGateway } from "./start-gateway.ts";

describe("readiness", () => {
  class StubEngine implements EnginePort {
    info: EngineInfo | undefined = scriptedInfo;
    status: EngineStatus = { ...emptyStatus("ready", 1), heartbeatMs: 0 };
    submit(): void {}
    cancel(): void {}
    set(change: Partial<EngineStatus>): void {
      this.status = { ...this.status, ...change };
    }
  }

  test("follows heartbeat and steps, not the port", () => {
    let now = 0;
    const engine = new StubEngine();
    const progress = new EngineProgress(engine, () => now);
    const why = () => {
      const { readiness } = progress;
      return readiness.isReady ? "ready" : readiness.why;
    };
    assert.equal(why(), "ready");
    now = 5001;
    assert.equal(why(), "the engine is silent");
    engine.set({ heartbeatMs: 1 });
    assert.equal(why(), "ready");
    // Busy, with a heartbeat but without a step.
    for (let i = 0; i < 6; i++) {
      now += 1000;
      engine.set({ running: 1, heartbeatMs: now });
      progress.observe();
    }
    assert.equal(why(), "the engine makes no progress");
    engine.set({ steps: 1 });
    assert.equal(why(), "ready");
    // Its steps take six seconds now: it has four times as long.
    now += 20_000;
    engine.set({ heartbeatMs: now });
    assert.equal(why(), "ready");
    engine.set({ state: "dead" });
    assert.equal(why(), "the engine is dead");
    engine.info = undefined;
    assert.equal(why(), "the model is loading");
  });
});

describe("the metrics", () => {
  const status = (engram?: EngramCounters): EngineStatus => {
    const empty = emptyStatus("ready", 1);
    return engram === undefined ? empty : { ...empty, counters: { ...empty.counters, engram } };
  };
  const textOf = async (engineStatus: EngineStatus) => {
    const engine: EnginePort = { info: scriptedInfo, status: engineStatus, submit() {}, cancel() {} };
    using metrics = new Metrics(engine, { streams: () => 0, engineRestarts: () => 0, isReady: () => true });
    return metrics.text();
  };

  test("tell what the n-gram memory read and found, and zeros without one", async () => {
    const engram = { lookups: 100, hits: 70, rowsRead: 31, batches: 4, readBytes: 8184, memoryBytes: 5000 };
    const names = [
      "lookups_total",
      "hits_total",
      "rows_read_total",
      "batches_total",
      "read_bytes_total",
      "memory_bytes",
    ];
    const values = async (engineStatus: EngineStatus) => {
      const text = await textOf(engineStatus);
      return names.map((name) => Number(new RegExp(`^freehold_engram_${name} (\\d+)$`, "m").exec(text)?.[1]));
    };
    assert.deepEqual(await values(status(engram)), Object.values(engram));
    assert.deepEqual(await values(status()), [0, 0, 0, 0, 0, 0]);
  });
});

describe("the gateway", () => {
  test("answers probes, health and the status page", async () => {
    await using server = await startGateway();
    for (const path of ["/livez", "/readyz", "/startupz"]) {
      assert.equal(await (await fetch(server.url + path)).text(), "ok\n", path);
    }
    assert.deepEqual(await (await fetch(`${server.url}/health`)).json(), { status: "ok", state: "ready" });
    const page = await fetch(server.url);
    assert.match(await page.text(), /^<!doctype html>/);
    assert.match(page.headers.get("content-security-policy")!, /default-src 'none'; script-src 'sha256-/);
    const status = (await (await fetch(`${server.url}/status.json`)).json()) as { model: string; ready: boolean };
    assert.deepEqual([status.model, status.ready], ["scripted", true]);
  });

  test("counts what happens, under our names and others'", async () => {
    await using server = await startGateway();
    await (await postTokens(server.url, { max: 5 })).json();
    const text = await (await fetch(`${server.url}/metrics`)).text();
    for (const line of [
      'freehold_requests_total{route="/v1/tokens",status="200"} 1',
      'freehold_tokens_total{kind="generated"} 5',
      'freehold_generations_total{outcome="length"} 1',
      "freehold_time_to_first_token_seconds_count 1",
      "gen_ai_server_request_duration_count 1",
      "vllm:num_requests_running 0",
      "vllm:num_requests_waiting 0",
      "vllm:kv_cache_usage_perc 0",
      "vllm:prefix_cache_queries_total 0",
      "freehold_ready 1",
      "freehold_engine_restarts_total 0",
    ])
      assert.ok(text.includes(`${line}\n`), line);
    assert.match(text, /freehold_event_loop_lag_p99_seconds \d/);
  });

  test("logs one line a request, without what was asked", async () => {
    await using server = await startGateway();
    const secret = "the secret of the prompt";
    await (await postTokens(server.url, { max: 2, secret }, { headers: { "x-request-id": "abc" } })).json();
    await fetch(`${server.url}/nothing?${encodeURIComponent(secret)}`);
    while (server.log.length < 2) await new Promise((resolve) => setImmediate(resolve));
    const [first, second] = server.log.map((line) => JSON.parse(line) as Record<string, unknown>);
    assert.deepEqual(first!.tokens, { prompt: 0, cached: 0, generated: 2 });
    assert.deepEqual(
      [first!.requestId, first!.route, first!.key, first!.status],
      ["abc", "/v1/tokens", "anonymous", 200],
    );
    assert.deepEqual([second!.route, second!.status, second!.fault], ["/nothing", 404, "not-found"]);
    assert.doesNotMatch(server.log.join(), /secret/);
  });

  test("sends spans to a collector, under the caller's trace", async () => {
    const received: string[] = [];
    const collector = createServer(async (request, response) => {
      received.push(`${request.url} ${Buffer.concat(await request.toArray()).toString()}`);
      response.end("{}");
    });
    await new Promise<void>((resolve) => collector.listen(0, "127.0.0.1", resolve));
    using tracer = new Tracer(`http://127.0.0.1:${(collector.address() as AddressInfo).port}`, "1", assert.fail);
    await using server = await startGateway({ tracer });
    const traceparent = `00-${"a".repeat(32)}-${"b".repeat(16)}-01`;
    await (await postTokens(server.url, { max: 2 }, { headers: { traceparent } })).json();
    while (server.log.length === 0) await new Promise((resolve) => setImmediate(resolve));
    await tracer.flush();
    collector.close();
    assert.equal(received.length, 1);
    assert.match(received[0]!, /^\/v1\/traces /);
    const document = JSON.parse(received[0]!.slice(11)) as {
      resourceSpans: { scopeSpans: { spans: Record<string, unknown>[] }[] }[];
    };
    const [span] = document.resourceSpans[0]!.scopeSpans[0]!.spans;
    assert.deepEqual(
      [span!.traceId, span!.parentSpanId, span!.name],
      ["a".repeat(32), "b".repeat(16), "POST /v1/tokens"],
    );
    assert.match(JSON.stringify(span), /"gen_ai\.usage\.output_tokens","value":\{"intValue":"2"\}/);
  });

  test("takes no trace for one that is none", () => {
    for (const header of [undefined, "", "00-0-0-0", `00-${"0".repeat(32)}-${"b".repeat(16)}-01`, "x".repeat(55)]) {
      assert.equal(parseTraceparent(header), undefined);
    }
  });
});

describe("the audit log", () => {
  test("goes on where it ended, and shows a line that was changed or removed", () => {
    const folder = mkdtempSync(join(tmpdir(), "freehold-audit-"));
    const path = join(folder, "audit.jsonl");
    for (const who of ["a", "b"]) {
      const log = new AuditLog(path);
      log.append({ who, what: "POST /v1/tokens", tokens: 3 }, new Date(0));
      log.append({ who, what: "reload" }, new Date(1));
    }
    const lines = readFileSync(path, "utf8").trimEnd().split("\n");
    assert.equal(lines.length, 4);
    verifyAudit(lines.join("\n"), path);
    const isBroken = (error: unknown) => error instanceof FormatError && error.code === "audit-chain";
    assert.throws(() => verifyAudit(lines.toSpliced(1, 1).join("\n"), path), isBroken);
    assert.throws(() => verifyAudit(lines.join("\n").replace('"tokens":3', '"tokens":4'), path), isBroken);
    writeFileSync(path, lines.toReversed().join("\n"));
    assert.throws(() => new AuditLog(path), isBroken);
    rmSync(folder, { recursive: true });
  });
});
