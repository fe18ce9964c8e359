/** What a crash costs: nothing that a client notices. Every process is real; the engine's tokens are known in advance. */
import assert from "node:assert/strict";
import { describe, test } from "node:test";
import { Supervisor } from "../../src/server/processes/supervisor.ts";
import { commands } from "./scripted-engine.ts";
import { postTokens } from "./start-gateway.ts";
import { expectedTokens, readTokens, scriptedConfig, startServer, until } from "./start-server.ts";

const limits = { timeout: 30_000 };

describe("the engine process", () => {
  test("killed five times under 20 streams loses, doubles and misorders no token", limits, async () => {
    await using server = await startServer();
    const length = 400;
    const counts = new Array<number>(20).fill(0);
    const streams = counts.map(async (_, i) => {
      const answer = await postTokens(server.url, { seed: i, max: length, stream: true });
      return readTokens(answer, (count) => {
        counts[i] = count;
      });
    });
    for (let kill = 1; kill <= 5; kill++) {
      // Each engine has given each stream something before it dies.
      await until(() => Math.min(...counts) >= kill * 60);
      const { enginePid } = server.supervisor;
      process.kill(enginePid!, "SIGKILL");
      await until(() => server.supervisor.enginePid !== undefined && server.supervisor.enginePid !== enginePid);
    }
    const answers = await Promise.all(streams);
    answers.forEach(({ ids, end }, i) => {
      assert.deepEqual(ids, expectedTokens(i, length), `stream ${i}`);
      assert.deepEqual(JSON.parse(end!.data), { finish: "length", generated: length });
    });
    assert.match(await (await fetch(`${server.url}/metrics`)).text(), /freehold_engine_restarts_total 5/);
  });

  test("that dies at one request each time refuses it and finishes the others", limits, async () => {
    await using server = await startServer({ engineOptions: { stepMs: 5 } });
    const innocent = [1, 2, 3].map(async (seed) =>
      readTokens(await postTokens(server.url, { seed, max: 300, stream: true })),
    );
    const poisoned = await postTokens(server.url, { tokens: [commands.die, 0], max: 5 });
    assert.equal(poisoned.status, 503);
    assert.match(JSON.stringify(await poisoned.json()), /engine_died/);
    for (const [i, { ids }] of (await Promise.all(innocent)).entries())
      assert.deepEqual(ids, expectedTokens(i + 1, 300));
  });

  test("that makes no step is killed, and the streams go on", limits, async () => {
    await using server = await startServer({ wedgeMs: 1000 });
    const stream = postTokens(server.url, { seed: 4, max: 1200, stream: true }).then((answer) => readTokens(answer));
    const wedging = await postTokens(server.url, { tokens: [commands.wedge, 3], max: 50 });
    assert.equal(wedging.status, 503);
    assert.deepEqual((await stream).ids, expectedTokens(4, 1200));
    assert.ok(server.notes.some((note) => /made no step/.test(note)));
  });

  test("that fails one request fails no other", limits, async () => {
    await using server = await startServer();
    const failing = await readTokens(
      await postTokens(server.url, { tokens: [commands.fail, 4], seed: 9, max: 9, stream: true }),
    );
    assert.deepEqual(failing.ids, expectedTokens(9, 4));
    assert.equal(failing.end?.event, "error");
    assert.match(failing.end!.data, /engine_error/);
    assert.equal((await postTokens(server.url, { max: 1 })).status, 200);
  });

  test("that cannot be loaded ends the server with its reason", limits, async () => {
    const config = scriptedConfig({ engineModule: new URL("./no-such-engine.ts", import.meta.url).href });
    await assert.rejects(Supervisor.start(config, { version: "0" }), /no-such-engine/);
  });

  test("is not ready while it loads, and says how far it is", limits, async () => {
    const progress: number[] = [];
    const server = await startServer({ engineOptions: { loadMs: 300 } });
    await using _ = server;
    assert.equal((await fetch(`${server.url}/readyz`)).status, 200);
    process.kill(server.supervisor.enginePid!, "SIGKILL");
    await until(async () => {
      const answer = await fetch(`${server.url}/readyz`);
      progress.push(answer.status);
      return answer.status === 503;
    });
    assert.equal((await fetch(`${server.url}/livez`)).status, 200);
    await until(async () => (await fetch(`${server.url}/readyz`)).status === 200);
  });
});
