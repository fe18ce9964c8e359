/** Routes of those who run the server, at a place of their own; and several addresses for clients. */
import assert from "node:assert/strict";
import { existsSync, mkdtempSync, rmSync, statSync, writeFileSync } from "node:fs";
import { request } from "node:http";
import { connect } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { describe, test } from "node:test";
import { FreeholdError, UsageError } from "../../src/errors.ts";
import { makeKey } from "../../src/server/keys.ts";
import { SingleProcess } from "../../src/server/processes/single-process.ts";
import { Supervisor } from "../../src/server/processes/supervisor.ts";
import { resolveServeConfig } from "../../src/server/serve-config.ts";
import { postTokens } from "./start-gateway.ts";
import { expectedTokens, scriptedConfig, startServer, until } from "./start-server.ts";

const limits = { timeout: 20_000 };

/** Status of a GET, or of a POST with a body, over a socket file. */
function over(socketPath: string, path: string, body?: object): Promise<number> {
  return new Promise((resolve, reject) => {
    const headers = { host: "any.example", ...(body && { "content-type": "application/json" }) };
    const sent = request({ socketPath, path, headers, method: body ? "POST" : "GET" }, (answer) => {
      answer.resume();
      resolve(answer.statusCode!);
    });
    sent.on("error", reject).end(body && JSON.stringify(body));
  });
}

const adminPaths = ["/metrics", "/status.json", "/"];

describe("an admin socket", limits, () => {
  test("has the routes of those who run the server, without a key, and clients have none of them", async () => {
    const folder = mkdtempSync(join(tmpdir(), "freehold-admin-"));
    const [admin, keys] = [join(folder, "admin.sock"), join(folder, "keys.json")];
    const { key, record } = makeKey({ name: "all", scopes: ["infer", "admin:read", "admin:write"] });
    writeFileSync(keys, JSON.stringify({ version: 1, keys: [record] }), { mode: 0o600 });
    const server = await startServer({ admin, keys });
    assert.equal(await server.supervisor.adminUrl(), `unix:${admin}`);
    assert.equal(statSync(admin).mode & 0o777, 0o600);
    const headers = { authorization: `Bearer ${key}` };
    for (const path of adminPaths) {
      assert.equal(await over(admin, path), 200, path);
      assert.equal((await fetch(`${server.url}${path}`, { headers })).status, 404, path);
    }
    for (const path of ["/livez", "/readyz", "/health"]) {
      assert.equal(await over(admin, path), 200, path);
      assert.equal((await fetch(`${server.url}${path}`)).status, 200, path);
    }
    assert.equal(await over(admin, "/v1/tokens", { max: 1 }), 404, "it computes nothing");
    assert.equal((await postTokens(server.url, { max: 1 }, { headers })).status, 200);
    assert.equal((await postTokens(server.url, { max: 1 })).status, 401);
    // The supervisor holds it as well: it stays when the gateway dies.
    process.kill(server.supervisor.gatewayPid!, "SIGKILL");
    await until(() => server.notes.some((note) => /gateway ended with SIGKILL/.test(note)));
    assert.equal(await over(admin, "/metrics"), 200);
    await server.supervisor.stop(0);
    assert.equal(existsSync(admin), false);
    rmSync(folder, { recursive: true });
  });

  test("on a port asks for a key with the scope, and is told its URL", async () => {
    const folder = mkdtempSync(join(tmpdir(), "freehold-admin-"));
    const keys = join(folder, "keys.json");
    const [reader, user] = [
      makeKey({ name: "reader", scopes: ["admin:read"] }),
      makeKey({ name: "user", scopes: ["infer"] }),
    ];
    writeFileSync(keys, JSON.stringify({ version: 1, keys: [reader.record, user.record] }), { mode: 0o600 });
    const config = scriptedConfig({ admin: "0", keys });
    for (const kind of [SingleProcess, Supervisor]) {
      const server = await kind.start(config, { version: "0" });
      const [url, adminUrl] = [await server.url(), await server.adminUrl()];
      assert.match(adminUrl!, /^http:\/\/127\.0\.0\.1:\d+$/);
      assert.notEqual(adminUrl, url);
      const statusOf = async (key?: string) =>
        (await fetch(`${adminUrl}/metrics`, key === undefined ? {} : { headers: { authorization: `Bearer ${key}` } }))
          .status;
      assert.deepEqual([await statusOf(), await statusOf(user.key), await statusOf(reader.key)], [401, 403, 200]);
      const rebound = await fetch(`${adminUrl}/metrics`, { headers: { origin: "https://evil.example" } });
      assert.equal(rebound.status, 403);
      await server.stop(0);
    }
    rmSync(folder, { recursive: true });
  });

  const wrong = [
    { admin: "8080" },
    { admin: "70000" },
    { unix: "/tmp/a.sock", admin: "/tmp/a.sock" },
    { host: "127.0.0.1,," },
    { host: "127.0.0.1,0.0.0.0" },
  ];
  for (const input of wrong) {
    test(`is no place: ${JSON.stringify(input)}`, () => assert.throws(() => resolveServeConfig(input), UsageError));
  }
});

describe("several addresses", limits, () => {
  const addresses = ["127.0.0.1", "127.0.0.2"];
  const ask = (host: string, port: string) => postTokens(`http://${host}:${port}`, { seed: 2, max: 3 });

  for (const kind of ["three processes", "one process"]) {
    test(`are one server on one port, in ${kind}`, async () => {
      const config = scriptedConfig({ host: "127.0.0.1, 127.0.0.2" });
      const server = await (kind === "one process" ? SingleProcess : Supervisor).start(config, { version: "0" });
      const { hostname, port } = new URL(await server.url());
      assert.equal(hostname, "127.0.0.1");
      for (const host of addresses)
        assert.deepEqual(await (await ask(host, port)).json(), { ids: expectedTokens(2, 3) }, host);
      // A connection that only waits is closed with the others.
      const idle = connect(Number(port), "127.0.0.2");
      const closed = new Promise((resolve) => idle.once("close", resolve));
      await new Promise((resolve) => idle.once("connect", resolve));
      await server.stop(0);
      await closed;
      for (const host of addresses) await assert.rejects(ask(host, port), host);
    });
  }

  test("of which one is taken are refused, and the others are free again", async () => {
    await using taken = await startServer({ host: "127.0.0.2" });
    const port = Number(new URL(taken.url).port);
    const isPortError = (error: unknown) =>
      error instanceof FreeholdError && error.code === "port-in-use" && error.message.includes("127.0.0.2");
    const config = scriptedConfig({ host: "127.0.0.1,127.0.0.2", port });
    await assert.rejects(Supervisor.start(config, { version: "0" }), isPortError);
    await using free = await startServer({ host: "127.0.0.1", port });
    assert.equal((await postTokens(free.url, { max: 1 })).status, 200);
  });
});
