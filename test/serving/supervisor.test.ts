/** The process that stays: it restarts, refuses, drains, stops and reloads. */
import assert from "node:assert/strict";
import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { describe, test } from "node:test";
import { FreeholdError } from "../../src/errors.ts";
import { makeKey } from "../../src/server/keys.ts";
import { Supervisor } from "../../src/server/processes/supervisor.ts";
import { postTokens } from "./start-gateway.ts";
import { expectedTokens, readTokens, scriptedConfig, startServer, until } from "./start-server.ts";

const limits = { timeout: 30_000 };

describe("the supervisor", () => {
  test("starts a killed gateway again on the same port", limits, async () => {
    await using server = await startServer();
    assert.equal((await postTokens(server.url, { max: 1 })).status, 200);
    process.kill(server.supervisor.gatewayPid!, "SIGKILL");
    // The connection waits in the kernel until the next gateway takes it.
    await until(() => server.notes.some((note) => /gateway ended with SIGKILL/.test(note)));
    const answer = await postTokens(server.url, { seed: 1, max: 2 }, { headers: { connection: "close" } });
    assert.deepEqual(await answer.json(), { ids: expectedTokens(1, 2) });
  });

  test(
    "is started when the first request is answered, not when the gateway does not yet know of the model",
    limits,
    async () => {
      await using server = await startServer({ engineOptions: { busyMs: 1500 } });
      assert.equal((await fetch(`${server.url}/readyz`)).status, 200);
      assert.equal((await postTokens(server.url, { max: 1 })).status, 200);
    },
  );

  test("refuses a port that is in use", limits, async () => {
    await using server = await startServer();
    const port = Number(new URL(server.url).port);
    const isPortError = (error: unknown) => error instanceof FreeholdError && error.code === "port-in-use";
    await assert.rejects(Supervisor.start(scriptedConfig({ port }), { version: "0" }), isPortError);
  });

  test("drains: running streams end, new work is refused, everything exits", limits, async () => {
    const server = await startServer();
    const { enginePid, gatewayPid } = server.supervisor;
    let count = 0;
    const answer = await postTokens(server.url, { seed: 3, max: 500, stream: true });
    const stream = readTokens(answer, (now) => {
      count = now;
    });
    await until(() => count > 10);
    const stopped = server.supervisor.stop(20_000);
    await until(async () => (await fetch(`${server.url}/readyz`)).status === 503);
    const refused = await postTokens(server.url, { max: 1 });
    assert.deepEqual([refused.status, refused.headers.get("retry-after")], [503, "5"]);
    assert.deepEqual((await stream).ids, expectedTokens(3, 500));
    await stopped;
    for (const pid of [enginePid, gatewayPid]) assert.throws(() => process.kill(pid!, 0), /ESRCH/);
  });

  test("that is told to stop twice ends streams with an error event at once", limits, async () => {
    const server = await startServer();
    let count = 0;
    const stream = readTokens(await postTokens(server.url, { max: 90_000, stream: true }), (now) => {
      count = now;
    });
    await until(() => count > 10);
    void server.supervisor.stop(60_000);
    await server.supervisor.stop(0);
    const { ids, end } = await stream;
    assert.deepEqual(ids, expectedTokens(0, ids.length));
    assert.equal(end?.event, "error");
    assert.match(end!.data, /stopping/);
  });

  test("reloads keys, and keeps the old ones when the file is wrong", limits, async () => {
    const folder = mkdtempSync(join(tmpdir(), "freehold-keys-"));
    const keys = join(folder, "keys.json");
    const [first, second] = ["first", "second"].map((name) => makeKey({ name, scopes: ["infer"] }));
    const write = (...records: unknown[]) => writeFileSync(keys, JSON.stringify({ version: 1, keys: records }));
    write(first!.record);
    await using server = await startServer({ keys });
    const statusOf = async (key: string) =>
      (await postTokens(server.url, { max: 1 }, { headers: { authorization: `Bearer ${key}` } })).status;
    assert.deepEqual([await statusOf(first!.key), await statusOf(second!.key)], [200, 401]);
    write(second!.record);
    server.supervisor.reload(scriptedConfig({ keys }));
    await until(async () => (await statusOf(second!.key)) === 200);
    assert.equal(await statusOf(first!.key), 401);
    writeFileSync(keys, "{");
    server.supervisor.reload(scriptedConfig({ keys }));
    await until(() => server.notes.some((note) => /Not reloaded/.test(note)));
    assert.equal(await statusOf(second!.key), 200);
    rmSync(folder, { recursive: true });
  });
});
