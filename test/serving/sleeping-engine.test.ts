/** An engine that gives its memory back while nobody needs it, and the server around it. */
import assert from "node:assert/strict";
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { describe, test } from "node:test";
import type { EngineEvent, EngineRequest } from "../../src/engine/batching/engine-port.ts";
import { SingleProcess } from "../../src/server/processes/single-process.ts";
import { SleepingEngine } from "../../src/server/processes/sleeping-engine.ts";
import { Supervisor } from "../../src/server/processes/supervisor.ts";
import { resolveServeConfig } from "../../src/server/serve-config.ts";
import { ScriptedEngine, scriptedInfo } from "./scripted-engine.ts";
import { postTokens } from "./start-gateway.ts";
import { expectedTokens, startServer, until } from "./start-server.ts";

const limits = { timeout: 60_000 };

const request = (id: string, maxTokens: number): EngineRequest => ({
  id,
  tokenIds: [0],
  generated: [],
  sampling: { seed: 4 },
  maxTokens,
  stopTokenIds: [],
  key: "",
  priority: 1,
  namespace: "",
});

/** Runs a request; resolves with its tokens and its last event. */
function run(engine: SleepingEngine, id: string, maxTokens: number) {
  const ids: number[] = [];
  const { promise, resolve } = Promise.withResolvers<{ ids: number[]; last: EngineEvent }>();
  engine.submit(request(id, maxTokens), (event) => {
    if (event.type === "tokens") ids.push(...event.ids);
    if (event.type === "end" || event.type === "error") resolve({ ids, last: event });
  });
  return promise;
}

/** Engines one after another; `gate` holds the next one's start. */
class Engines {
  readonly opened: ScriptedEngine[] = [];
  closed = 0;
  gate: Promise<void> = Promise.resolve();

  async open(): Promise<ScriptedEngine> {
    await this.gate;
    const engine = new ScriptedEngine({ stepMs: 1 });
    const close = engine.close.bind(engine);
    engine.close = async () => {
      await close();
      this.closed++;
    };
    this.opened.push(engine);
    return engine;
  }
}

describe("an engine that may sleep", () => {
  test("sleeps after a time without work, not before, and answers as ever when it is asked again", limits, async () => {
    const engines = new Engines();
    const engine = await SleepingEngine.start({ open: () => engines.open(), afterMs: 30 });
    // A long answer keeps it awake.
    assert.deepEqual((await run(engine, "long", 100)).ids, expectedTokens(4, 100));
    assert.equal(engines.opened.length, 1);
    await until(() => engine.status.state === "sleeping");
    assert.equal(engines.closed, 1);
    assert.deepEqual(engine.info, scriptedInfo);
    assert.equal(engine.status.counters.generatedTokens, 100);
    assert.equal(engine.status.running + engine.status.waiting, 0);

    const answers = await Promise.all([run(engine, "a", 5), run(engine, "b", 7)]);
    assert.deepEqual(
      answers.map(({ ids }) => ids),
      [expectedTokens(4, 5), expectedTokens(4, 7)],
    );
    assert.equal(engines.opened.length, 2, "two requests wake it once");
    assert.equal(engine.status.counters.generatedTokens, 112, "totals go on");
    assert.equal(engine.status.state, "ready");
    await engine.close();
    assert.equal(engines.closed, 2);
  });

  test("holds requests while it wakes, and lets those go that are cancelled", limits, async () => {
    const engines = new Engines();
    const engine = await SleepingEngine.start({ open: () => engines.open(), afterMs: 5 });
    await until(() => engine.status.state === "sleeping");
    const gate = Promise.withResolvers<void>();
    engines.gate = gate.promise;
    const kept = run(engine, "kept", 3);
    const given = run(engine, "given up", 3);
    assert.equal(engine.status.state, "waking");
    assert.equal(engine.status.waiting, 2);
    engine.cancel("given up");
    const { ids, last } = await given;
    assert.deepEqual([ids, last.type === "end" && last.finish], [[], "cancelled"]);
    gate.resolve();
    assert.deepEqual((await kept).ids, expectedTokens(4, 3));
    await engine.close();
  });

  test("begins to load when a request is announced", limits, async () => {
    const engines = new Engines();
    const engine = await SleepingEngine.start({ open: () => engines.open(), afterMs: 5 });
    await until(() => engine.status.state === "sleeping");
    engine.wake();
    assert.equal(engine.status.state, "waking");
    await until(() => engines.opened.length === 2);
    await until(() => engine.status.state === "sleeping");
    await engine.close();
    assert.deepEqual([engines.opened.length, engines.closed], [2, 2]);
  });

  test("that cannot load fails who waits, and tries again with the next", limits, async () => {
    const engines = new Engines();
    const engine = await SleepingEngine.start({ open: () => engines.open(), afterMs: 5 });
    await until(() => engine.status.state === "sleeping");
    engines.gate = Promise.reject(new Error("the disk is gone"));
    const { last } = await run(engine, "a", 3);
    assert.deepEqual(last, {
      type: "error",
      error: { code: "engine_error", message: "the disk is gone", isRetryable: true },
    });
    assert.equal(engine.status.state, "sleeping");
    engines.gate = Promise.resolve();
    assert.deepEqual((await run(engine, "b", 3)).ids, expectedTokens(4, 3));
    await engine.close();
    const { last: late } = await run(engine, "c", 3);
    assert.equal(late.type === "error" && late.error.code, "stopping");
  });
});

describe("freehold serve --sleep-after", () => {
  test(
    "stays well while it sleeps, tells it, and wakes with the next request, in three processes",
    limits,
    async () => {
      await using server = await startServer({ sleepAfterMs: 1000 });
      const read = async (path: string) => (await fetch(`${server.url}${path}`)).json();
      const state = async () => ((await read("/status.json")) as { state: string }).state;
      await until(async () => (await state()) === "sleeping");
      assert.equal((await fetch(`${server.url}/readyz`)).status, 200);
      assert.deepEqual(await read("/health"), { status: "ok", state: "sleeping" });
      const metrics = await (await fetch(`${server.url}/metrics`)).text();
      assert.match(metrics, /^freehold_engine_sleeping 1$/m);
      const { enginePid } = server.supervisor;
      const answer = await postTokens(server.url, { seed: 6, max: 4 });
      assert.deepEqual(await answer.json(), { ids: expectedTokens(6, 4) });
      await until(async () => (await state()) === "ready");
      await until(async () => (await state()) === "sleeping");
      assert.equal(server.supervisor.enginePid, enginePid, "it was put to sleep, not killed");
      assert.deepEqual(server.notes, []);
    },
  );

  for (const singleProcess of [true, false]) {
    const where = singleProcess ? "in one process" : "in three";
    test(`answers with the same tokens after a sleep, the prompt known from disk, ${where}`, limits, async () => {
      const folder = mkdtempSync(join(tmpdir(), "freehold-sleep-"));
      const config = resolveServeConfig({
        port: 0,
        log: "off",
        sleepAfterMs: 300,
        singleProcess,
        engineOptions: { cacheDirectory: folder, threads: 1 },
      });
      const server = await (singleProcess ? SingleProcess : Supervisor).start(config, { version: "0" });
      const url = await server.url();
      const ask = async () => {
        const prompt = "Once upon a time there was a castle on a hill, and in the castle lived a queen. ".repeat(20);
        const body = JSON.stringify({ prompt, n_predict: 20, temperature: 0, ignore_eos: true });
        const headers = { "content-type": "application/json" };
        const answer = await fetch(`${url}/completion`, { method: "POST", headers, body });
        return (await answer.json()) as { content: string; timings: { cache_n: number } };
      };
      const isSleeping = async () =>
        ((await (await fetch(`${url}/props`)).json()) as { is_sleeping: boolean }).is_sleeping;
      const first = await ask();
      assert.equal(first.timings.cache_n, 0);
      await until(isSleeping);
      const second = await ask();
      assert.equal(second.content, first.content);
      assert.ok(second.timings.cache_n > 100, `${second.timings.cache_n} tokens were known`);
      await until(isSleeping);
      await server.stop(0);
      rmSync(folder, { recursive: true });
    });
  }
});
