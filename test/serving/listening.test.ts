/** Where and to whom the server listens: TLS, Unix sockets, listed origins. */
import assert from "node:assert/strict";
import { existsSync, mkdtempSync, readFileSync, rmSync, statSync, writeFileSync } from "node:fs";
import { type ClientRequest, type IncomingMessage, request as plainRequest } from "node:http";
import { request as tlsRequest } from "node:https";
import { createServer } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { describe, test } from "node:test";
import { fileURLToPath } from "node:url";
import { SingleProcess } from "../../src/server/processes/single-process.ts";
import { postTokens, startGateway } from "./start-gateway.ts";
import { expectedTokens, scriptedConfig, startServer } from "./start-server.ts";

const limits = { timeout: 20_000 };
const certificate = fileURLToPath(new URL("../data/serving/localhost-cert.pem", import.meta.url));
const key = fileURLToPath(new URL("../data/serving/localhost-key.pem", import.meta.url));

type Send = (options: object, answered: (answer: IncomingMessage) => void) => ClientRequest;

/** Status and body of a GET. */
function get(send: Send, options: object): Promise<readonly [number, string]> {
  return new Promise((resolve, reject) => {
    const request = send(options, async (answer) => {
      resolve([answer.statusCode!, Buffer.concat(await answer.toArray()).toString()]);
    });
    request.on("error", reject).end();
  });
}

describe("the server", () => {
  test("speaks TLS with the certificate it is given", limits, async () => {
    await using server = await startServer({ tlsCert: certificate, tlsKey: key });
    const { port, protocol } = new URL(server.url);
    assert.equal(protocol, "https:");
    const options = { port, host: "localhost", path: "/livez", ca: readFileSync(certificate) };
    assert.deepEqual(await get(tlsRequest, options), [200, "ok\n"]);
    await assert.rejects(get(plainRequest, { port, host: "127.0.0.1", path: "/livez" }));
  });

  test("lets in only clients with a certificate when it is told to", limits, async () => {
    await using server = await startServer({ tlsCert: certificate, tlsKey: key, tlsClientCa: certificate });
    const options = {
      port: new URL(server.url).port,
      host: "localhost",
      path: "/livez",
      ca: readFileSync(certificate),
    };
    await assert.rejects(get(tlsRequest, options));
    const own = { cert: readFileSync(certificate), key: readFileSync(key) };
    assert.deepEqual(await get(tlsRequest, { ...options, ...own }), [200, "ok\n"]);
  });

  test("listens on a Unix socket of its owner, whatever the Host, and leaves none behind", limits, async () => {
    const folder = mkdtempSync(join(tmpdir(), "freehold-unix-"));
    const unix = join(folder, "server.sock");
    // A socket file that a killed server left.
    const stale = createServer().listen(unix);
    await new Promise((resolve) => stale.once("listening", resolve));
    const inUse = await startServer({ unix }).then(
      () => "started",
      (error: { code: string }) => error.code,
    );
    assert.equal(inUse, "port-in-use");
    await new Promise((resolve) => stale.close(resolve));
    const server = await startServer({ unix });
    assert.equal(server.url, `unix:${unix}`);
    assert.equal(statSync(unix).mode & 0o777, 0o600);
    const options = { socketPath: unix, path: "/livez", headers: { host: "any.example" } };
    assert.deepEqual(await get(plainRequest, options), [200, "ok\n"]);
    await server.supervisor.stop(0);
    assert.equal(existsSync(unix), false);
    rmSync(folder, { recursive: true });
  });

  test("lets pages of listed origins read answers, and no others", async () => {
    const origin = "https://app.example";
    await using server = await startGateway({ origins: { origins: [origin] } });
    const listed = await postTokens(server.url, { max: 1 }, { headers: { origin } });
    assert.equal(listed.headers.get("access-control-allow-origin"), origin);
    assert.equal(listed.headers.get("access-control-allow-credentials"), null);
    const preflight = await fetch(`${server.url}/v1/tokens`, { method: "OPTIONS", headers: { origin } });
    assert.equal(preflight.status, 204);
    assert.match(preflight.headers.get("access-control-allow-headers")!, /authorization, content-type/);
    for (const other of ["https://evil.example", "https://app.example.evil.example", "http://app.example"]) {
      const refused = await postTokens(server.url, { max: 1 }, { headers: { origin: other } });
      assert.deepEqual([refused.status, refused.headers.get("access-control-allow-origin")], [403, null]);
    }
    const same = await postTokens(server.url, { max: 1 }, { headers: { origin: server.url } });
    assert.equal(same.status, 200);
  });

  test("runs in one process as well, and reloads there", limits, async () => {
    const folder = mkdtempSync(join(tmpdir(), "freehold-single-"));
    const keys = join(folder, "keys.json");
    writeFileSync(keys, '{"version":1,"keys":[]}');
    const server = await SingleProcess.start(scriptedConfig(), { version: "0" });
    const url = await server.url();
    assert.deepEqual(await (await postTokens(url, { seed: 2, max: 3 })).json(), { ids: expectedTokens(2, 3) });
    server.reload(scriptedConfig({ keys }));
    assert.equal((await postTokens(url, { max: 1 })).status, 401);
    await server.stop(1000);
    rmSync(folder, { recursive: true });
  });
});
