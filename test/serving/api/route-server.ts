/** A bare HTTP server around routes, for tests alone: no keys, no limits. The gateway does this for users. */
import { createServer, type IncomingMessage, type Server, type ServerResponse } from "node:http";
import type { AddressInfo } from "node:net";
import type { EnginePort } from "../../../src/engine/batching/engine-port.ts";
import { FormatError, RequestError } from "../../../src/errors.ts";
import { parseJson } from "../../../src/json/parse-json.ts";
import { type ApiOptions, apiRoutes } from "../../../src/server/api/routes.ts";
import { HttpError } from "../../../src/server/http-error.ts";
import type { Call, ErrorDialect, EventStream, Route, Services } from "../../../src/server/route.ts";
import { tokenizer } from "./scripted-engine.ts";

export interface RouteServer extends AsyncDisposable {
  readonly url: string;
  /** Calls that were accounted, in their order. */
  readonly accounts: { prompt: number; cached: number; generated: number }[];
  readonly admissions: { prompt: number; generated: number }[];
  /** The next so many requests are answered with this error. */
  failNext(times: number, error: HttpError): void;
  /** What a congested client looks like. */
  isCongested: boolean;
}

export async function startRouteServer(
  engine: EnginePort,
  options: ApiOptions & { dialect?: Services["dialect"] } = {},
): Promise<RouteServer> {
  const routes = apiRoutes(options);
  const services: Services = {
    engine,
    requireInfo() {
      if (engine.info === undefined) throw new HttpError(503, "The model loads", { code: "loading" });
      return engine.info;
    },
    tokenizer,
    dialect: options.dialect ?? "v4",
    version: "0.0.0",
    now: () => 1_800_000_000,
  };
  let requests = 0;
  const failures: HttpError[] = [];
  const state = { isCongested: false };
  const accounts: RouteServer["accounts"] = [];
  const admissions: RouteServer["admissions"] = [];
  const server = createServer((request, response) => {
    const requestId = `r${++requests}`;
    const abort = new AbortController();
    response.on("close", () => {
      if (!response.writableFinished)
        abort.abort(new HttpError(499, "The client went away", { code: "client_closed" }));
    });
    answer(request, response, { requestId, signal: abort.signal }).catch((error: unknown) => {
      response.destroy(error as Error);
    });
  });

  async function answer(
    request: IncomingMessage,
    response: ServerResponse,
    base: { requestId: string; signal: AbortSignal },
  ) {
    const url = new URL(request.url!, "http://localhost");
    const found = findRoute(routes, request.method!, url.pathname);
    const errors = found?.route.errors ?? "openai";
    try {
      if (failures.length > 0) throw failures.shift()!;
      if (found === undefined)
        throw new HttpError(404, `There is no ${request.method} ${url.pathname}`, { code: "not_found" });
      const text = await readAll(request);
      const call: Call = {
        ...base,
        url,
        parameters: found.parameters,
        headers: request.headers,
        body: text === "" ? undefined : parseJson(text),
        key: "anonymous",
        namespace: String(request.headers["x-namespace"] ?? "default"),
        priority: 1,
        admit: (tokens) => admissions.push(tokens),
        account: (usage) => accounts.push(usage),
        json(status, value, headers = {}) {
          response.writeHead(status, { "content-type": "application/json", ...headers });
          response.end(JSON.stringify(value));
        },
        text(status, value, contentType) {
          response.writeHead(status, { "content-type": contentType });
          response.end(value);
        },
        openStream: () => openStream(response, state),
      };
      await found.route.handle(call, services);
    } catch (error) {
      sendError(response, error, errors, base.requestId);
    }
  }

  await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
  return {
    url: `http://127.0.0.1:${(server.address() as AddressInfo).port}`,
    accounts,
    admissions,
    failNext(times, error) {
      for (let i = 0; i < times; i++) failures.push(error);
    },
    get isCongested() {
      return state.isCongested;
    },
    set isCongested(value) {
      state.isCongested = value;
    },
    [Symbol.asyncDispose]: () => close(server),
  };
}

function close(server: Server): Promise<void> {
  server.closeAllConnections();
  return new Promise((resolve) => server.close(() => resolve()));
}

function findRoute(routes: readonly Route[], method: string, pathname: string) {
  const parts = pathname.split("/");
  for (const route of routes) {
    const names = route.path.split("/");
    if (route.method !== method || names.length !== parts.length) continue;
    const parameters: Record<string, string> = {};
    const matches = names.every((name, i) => {
      if (!name.startsWith("{")) return name === parts[i];
      parameters[name.slice(1, -1)] = decodeURIComponent(parts[i]!);
      return true;
    });
    if (matches) return { route, parameters };
  }
  return undefined;
}

function openStream(response: ServerResponse, state: { readonly isCongested: boolean }): EventStream {
  const write = (text: string) => {
    if (!response.headersSent) response.writeHead(200, { "content-type": "text/event-stream" });
    response.write(text);
  };
  return {
    send: (data, event) => write(`${event === undefined ? "" : `event: ${event}\n`}data: ${data}\n\n`),
    keepAliveWith() {},
    get isCongested() {
      return state.isCongested;
    },
    end: () => void response.end(),
  };
}

function sendError(response: ServerResponse, error: unknown, dialect: ErrorDialect, requestId: string): void {
  if (response.headersSent) {
    response.destroy();
    return;
  }
  const known = error instanceof HttpError || error instanceof RequestError || error instanceof FormatError;
  const status = error instanceof HttpError ? error.status : known ? 400 : 500;
  const message = known ? [error.message, error.hint].filter(Boolean).join(". ") : String((error as Error)?.stack);
  const type = errorType(status, dialect);
  const retry =
    error instanceof HttpError && error.retryAfterSeconds !== undefined ? error.retryAfterSeconds : undefined;
  response.writeHead(status, {
    "content-type": "application/json",
    ...(retry === undefined ? {} : { "retry-after": String(retry) }),
  });
  const body =
    dialect === "anthropic"
      ? { type: "error", error: { type, message }, request_id: requestId }
      : {
          error: { message, type, param: (known && error.where) || null, code: known ? error.code : "internal_error" },
        };
  response.end(JSON.stringify(body));
}

function errorType(status: number, dialect: ErrorDialect): string {
  if (status === 404 && dialect === "anthropic") return "not_found_error";
  if (status === 429) return "rate_limit_error";
  if (status < 500) return "invalid_request_error";
  return dialect === "anthropic" ? "api_error" : "server_error";
}

async function readAll(request: IncomingMessage): Promise<string> {
  const parts: Buffer[] = [];
  for await (const part of request) parts.push(part as Buffer);
  return Buffer.concat(parts).toString("utf8");
}
