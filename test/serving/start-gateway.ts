/** A gateway in the test's process, on a free port of this machine, with the scripted engine behind it. */
import type { AddressInfo, Socket } from "node:net";
import { connect } from "node:net";
import { openTokenizer } from "../../src/engine/load-model.ts";
import { createGateway, type Gateway, type GatewayOptions } from "../../src/server/gateway.ts";
import { ScriptedEngine } from "./scripted-engine.ts";
import { apiRoutes } from "./token-route.ts";

export interface RunningGateway extends AsyncDisposable {
  readonly gateway: Gateway;
  readonly engine: ScriptedEngine;
  readonly port: number;
  readonly url: string;
  readonly log: readonly string[];
}

export async function startGateway(
  options: Partial<GatewayOptions> = {},
  engine = new ScriptedEngine({ stepMs: 1 }),
): Promise<RunningGateway> {
  const { tokenizer, dialect } = await openTokenizer();
  const log: string[] = [];
  const base = {
    engine,
    tokenizer,
    dialect,
    routes: apiRoutes(),
    version: "0.0.0",
    log: (line: string) => void log.push(line),
  };
  const gateway = createGateway({ ...base, ...options });
  await new Promise<void>((resolve) => gateway.server.listen(0, "127.0.0.1", resolve));
  const { port } = gateway.server.address() as AddressInfo;
  return {
    gateway,
    engine,
    port,
    url: `http://127.0.0.1:${port}`,
    log,
    async [Symbol.asyncDispose]() {
      await gateway.close();
      await engine.close();
    },
  };
}

/** Sends bytes over a bare socket and reads until the server closes. */
export function rawRequest(port: number, parts: string | Buffer | readonly (string | Buffer)[]): Promise<string> {
  return new Promise((resolve, reject) => {
    const socket: Socket = connect(port, "127.0.0.1");
    let answer = "";
    socket.setEncoding("latin1");
    socket.on("data", (chunk) => {
      answer += chunk;
    });
    // The server may close while the rest is still being written.
    socket.on("error", (error: NodeJS.ErrnoException) => {
      if (answer === "" && error.code !== "EPIPE" && error.code !== "ECONNRESET") reject(error);
    });
    socket.on("close", () => resolve(answer));
    for (const part of [parts].flat()) socket.write(part);
  });
}

export function postTokens(url: string, body: object, init: RequestInit = {}): Promise<Response> {
  const headers = { "content-type": "application/json", ...(init.headers as Record<string, string>) };
  return fetch(`${url}/v1/tokens`, { method: "POST", body: JSON.stringify(body), ...init, headers });
}
