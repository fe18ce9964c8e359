/**
 * The gateway: from a socket to a route and back. Every request passes the same gates in the same order: headers, Host and Origin,
 * route, key, drain, body; a fault at any of them is answered in the shape of the route's API, and each request ends in one line of
 * the log. It knows no dialect of an API and no model: routes are given, and the engine is a port.
 */
import type { IncomingMessage, Server, ServerResponse } from "node:http";
import type { DialectName } from "../chat/dialect.ts";
import type { EngineInfo, EnginePort } from "../engine/batching/engine-port.ts";
import type { Json } from "../json/parse-json.ts";
import type { Tokenizer } from "../tokenizer/tokenizer.ts";
import { errorAnswer } from "./http/error-body.ts";
import { HttpCall } from "./http/http-call.ts";
import { createHttpServer, defaultHttpLimits, type HttpLimits, type TlsOptions } from "./http/http-server.ts";
import { KeepAlive } from "./http/keep-alive.ts";
import { checkHost, checkOrigin, corsHeaders, type OriginPolicy, preflightHeaders } from "./http/origin-check.ts";
import { type BodyLimits, BodyReader, defaultBodyLimits } from "./http/read-body.ts";
import { checkHeaders, requestIdOf, targetUrl } from "./http/request-target.ts";
import { type RouteMatch, Router } from "./http/router.ts";
import { defaultStreamLimits, type StreamLimits } from "./http/server-sent-events.ts";
import { HttpError } from "./http-error.ts";
import { anonymous, type Identity, type Keyring } from "./keys.ts";
import { Admission, defaultQueueLimits, type QueueLimits, type Ticket } from "./limits/admission.ts";
import { CallEngine, type Deadlines, defaultTimeLimits, realDeadlines, type TimeLimits } from "./limits/call-engine.ts";
import { accessLine, type WriteLine } from "./observability/access-log.ts";
import type { AuditLog } from "./observability/audit-log.ts";
import { EngineProgress, type Readiness } from "./observability/engine-progress.ts";
import { Metrics } from "./observability/metrics.ts";
import { operationRoutes } from "./observability/operation-routes.ts";
import type { Tracer } from "./observability/traces.ts";
import type { ErrorDialect, Route, Services } from "./route.ts";

export interface GatewayOptions {
  readonly engine: EnginePort;
  readonly tokenizer: Tokenizer;
  readonly dialect: DialectName;
  /** Of the APIs; probes, metrics and the status page are the gateway's own. */
  readonly routes: readonly Route[];
  readonly version: string;
  /** Without keys everybody may do everything: for loopback only. */
  readonly keyring?: Keyring | undefined;
  readonly origins?: Partial<Omit<OriginPolicy, "hasKeys">>;
  readonly http?: Partial<HttpLimits>;
  readonly body?: Partial<BodyLimits>;
  readonly stream?: Partial<StreamLimits>;
  readonly queue?: Partial<QueueLimits>;
  readonly times?: Partial<TimeLimits>;
  readonly tls?: TlsOptions | undefined;
  readonly log?: WriteLine;
  readonly audit?: AuditLog | undefined;
  readonly tracer?: Tracer | undefined;
  /** Times that the engine was lost. */
  readonly engineRestarts?: () => number;
  /** After this much silence a stream gets its ping. */
  readonly silenceMs?: number;
  /** Milliseconds since 1970. */
  readonly clock?: () => number;
  readonly deadlines?: Deadlines;
}

/** What a reload may change while requests run. */
export type ReloadableOptions = Pick<GatewayOptions, "keyring" | "origins" | "queue" | "times">;

export function createGateway(options: GatewayOptions): Gateway {
  return new Gateway(options);
}

export class Gateway {
  /** Not yet listening: `server.listen(...)`. */
  readonly server: Server;
  readonly #options: GatewayOptions;
  readonly #router: Router;
  readonly #body: BodyReader;
  readonly #keepAlive: KeepAlive;
  readonly #admission: Admission;
  readonly #metrics: Metrics;
  readonly #progress: EngineProgress;
  readonly #progressTimer: NodeJS.Timeout;
  readonly #clock: () => number;
  readonly #deadlines: Deadlines;
  readonly #running = new Set<Exchange>();
  #settings: ReloadableOptions;
  #isDraining = false;

  constructor(options: GatewayOptions) {
    this.#options = options;
    this.#settings = options;
    this.#clock = options.clock ?? Date.now;
    this.#deadlines = options.deadlines ?? realDeadlines;
    const { engine } = options;
    this.#keepAlive = new KeepAlive(options.silenceMs === undefined ? {} : { silenceMs: options.silenceMs });
    this.#progress = new EngineProgress(engine, () => this.#deadlines.nowMs());
    this.#progressTimer = setInterval(() => this.#progress.observe(), 250).unref();
    const numbers = {
      streams: () => this.#keepAlive.size,
      engineRestarts: options.engineRestarts ?? (() => 0),
      isReady: () => this.readiness.isReady,
    };
    this.#metrics = new Metrics(engine, numbers);
    const seconds = () => this.#deadlines.nowMs() / 1000;
    const queue = { ...defaultQueueLimits, ...options.queue };
    this.#admission = new Admission(queue, seconds, (reason) => this.#metrics.refused(reason));
    this.#body = new BodyReader({ ...defaultBodyLimits, ...options.body });
    const own = operationRoutes({ readiness: () => this.readiness, metrics: this.#metrics, ...numbers });
    const taken = new Set(options.routes.map(({ method, path }) => `${method} ${path}`));
    // An API may bring a route of its own for "/", as Anthropic's clients ask for HEAD /.
    this.#router = new Router([
      ...options.routes,
      ...own.filter(({ method, path }) => !taken.has(`${method} ${path}`)),
    ]);
    const limits = { ...defaultHttpLimits, ...options.http };
    this.server = createHttpServer((...args) => void this.#serve(...args), limits, options.tls);
  }

  get readiness(): Readiness {
    return this.#isDraining ? { isReady: false, why: "the server is draining" } : this.#progress.readiness;
  }

  /** Other keys, origins and limits from the next request on. */
  reload(settings: ReloadableOptions): void {
    this.#settings = settings;
    this.#admission.limits = { ...defaultQueueLimits, ...settings.queue };
  }

  /**
   * Stops taking work, waits for what runs, and ends what still runs after the limit. The port stays open meanwhile: probes see "not
   * ready", new work is refused with 503.
   */
  async drain(limitMs: number): Promise<void> {
    this.#isDraining = true;
    const deadline = Promise.withResolvers<void>();
    const stop = this.#deadlines.after(limitMs, deadline.resolve);
    await Promise.race([this.#callsFinished(), deadline.promise]);
    stop();
    this.#stopAll();
  }

  /** Closes the port and every connection. */
  async close(): Promise<void> {
    this.#stopAll();
    clearInterval(this.#progressTimer);
    this.#keepAlive[Symbol.dispose]();
    this.#metrics[Symbol.dispose]();
    const closed = new Promise<void>((resolve) => this.server.close(() => resolve()));
    this.server.closeIdleConnections();
    // What was just aborted gets its last event out.
    await new Promise((resolve) => setImmediate(resolve));
    this.server.closeAllConnections();
    await closed;
  }

  #finished: (() => void) | undefined;

  /** Ends what runs with an error that clients may try again after. */
  #stopAll(): void {
    for (const exchange of [...this.#running]) {
      const error = new HttpError(503, "The server stops", { code: "stopping", retryAfterSeconds: 5 });
      exchange.fail(error, exchange.match!.route.errors);
      exchange.call!.abort(error);
    }
  }

  #callsFinished(): Promise<void> {
    if (this.#running.size === 0) return Promise.resolve();
    return new Promise((resolve) => {
      this.#finished = resolve;
    });
  }

  async #serve(request: IncomingMessage, response: ServerResponse, expectsContinue: boolean): Promise<void> {
    const exchange = new Exchange(request, response, this.#deadlines.nowMs());
    response.on("error", () => undefined);
    request.on("error", () => undefined);
    response.once("close", () => this.#log(exchange));
    try {
      await this.#answer(exchange, expectsContinue);
    } catch (error) {
      exchange.fail(error, exchange.match?.route.errors ?? this.#router.dialect(exchange.path));
    }
  }

  async #answer(exchange: Exchange, expectsContinue: boolean): Promise<void> {
    const { request, response } = exchange;
    for (const [name, value] of securityHeaders) response.setHeader(name, value);
    response.setHeader("x-request-id", exchange.requestId);
    checkHeaders(request);
    const url = targetUrl(request.url ?? "/");
    exchange.path = url.pathname;
    const policy = this.#originPolicy();
    for (const [name, value] of Object.entries(corsHeaders(request.headers.origin, policy)))
      response.setHeader(name, value);
    checkHost(request.headers, policy);
    // A browser that finds no permission in the answer asks no further: the question itself is nothing to refuse.
    if (request.method === "OPTIONS") return this.#preflight(exchange);
    checkOrigin(request.headers, policy);
    exchange.match = this.#router.match(request.method ?? "GET", url.pathname);
    exchange.identity = this.#identify(exchange);
    this.#checkDrain(exchange.match.route);
    const { method, scope } = exchange.match.route;
    // Whoever counts tokens is about to ask as well: a model that sleeps is loaded while the prompt is still read.
    if (method === "POST" && scope === "infer") this.#options.engine.wake?.();
    const body = await this.#readBody(exchange, expectsContinue);
    await this.#call(exchange, url, body);
  }

  #originPolicy(): OriginPolicy {
    const { keyring, origins } = this.#settings;
    return {
      origins: [],
      hosts: [],
      isUnixSocket: false,
      isLoopback: true,
      ...origins,
      hasKeys: keyring !== undefined,
    };
  }

  #preflight({ request, response, path }: Exchange): void {
    const methods = this.#router.methods(path);
    if (methods === undefined) throw new HttpError(404, `There is no ${path}`, { code: "not-found" });
    const isPreflight = request.headers.origin !== undefined && response.hasHeader("access-control-allow-origin");
    // A real preflight gets 200: some clients take nothing else for a permission.
    const status = request.headers["access-control-request-method"] === undefined ? 204 : 200;
    response.writeHead(status, { allow: methods.join(", "), ...(isPreflight ? preflightHeaders(methods) : {}) }).end();
  }

  #identify({ request, match }: Exchange): Identity {
    const { keyring } = this.#settings;
    return keyring === undefined ? anonymous : keyring.authenticate(request.headers, match!.route.scope);
  }

  #checkDrain({ scope }: Route): void {
    if (!this.#isDraining || scope !== "infer") return;
    throw new HttpError(503, "The server is about to stop", {
      code: "draining",
      retryAfterSeconds: 5,
      headers: { connection: "close" },
    });
  }

  async #readBody({ request, response, match }: Exchange, expectsContinue: boolean): Promise<Json | undefined> {
    if (match!.route.method !== "POST") {
      refuseBody(request);
      return undefined;
    }
    this.#body.check(request);
    if (expectsContinue) response.writeContinue();
    return await this.#body.readJson(request);
  }

  async #call(exchange: Exchange, url: URL, body: Json | undefined): Promise<void> {
    const { request, response, match, identity, requestId } = exchange;
    const tickets: Ticket[] = [];
    const call = new HttpCall({
      requestId,
      url,
      parameters: match!.parameters,
      headers: request.headers,
      body,
      identity: identity!,
      response,
      keepAlive: this.#keepAlive,
      streamLimits: { ...defaultStreamLimits, ...this.#options.stream },
      admit: (tokens) => void tickets.push(this.#admission.admit(identity!, tokens.prompt)),
    });
    exchange.call = call;
    this.#running.add(exchange);
    const engine = this.#engineOf(call, tickets);
    call.signal.addEventListener("abort", () => engine.close(), { once: true });
    try {
      await match!.route.handle(call, this.#services(engine));
      if (!response.headersSent && call.stream === undefined && !call.signal.aborted) {
        throw new Error(`${match!.route.path} gave no answer`);
      }
    } finally {
      engine.close();
      tickets.forEach((ticket, i) => {
        ticket.finished(i === 0 ? (call.usage?.generated ?? engine.generatedTokens) : 0);
      });
      this.#running.delete(exchange);
      if (this.#running.size === 0) this.#finished?.();
    }
  }

  #engineOf(call: HttpCall, tickets: readonly Ticket[]): CallEngine {
    const metrics = this.#metrics;
    return new CallEngine({
      engine: this.#options.engine,
      owner: { key: call.key, namespace: call.namespace, priority: call.priority },
      limits: { ...defaultTimeLimits, ...this.#settings.times },
      deadlines: this.#deadlines,
      observer: {
        started: (queueMs) => {
          for (const ticket of tickets) ticket.started();
          metrics.started(queueMs);
        },
        firstToken: (ms) => metrics.firstToken(ms),
        tokens: (count, ms) => metrics.tokens(count, ms),
        ended: (outcome, ms, usage) => metrics.ended(outcome, ms, usage),
      },
    });
  }

  #services(engine: EnginePort): Services {
    const { tokenizer, dialect, version } = this.#options;
    const requireInfo = () => requireEngineInfo(engine);
    return { engine, requireInfo, tokenizer, dialect, version, now: () => this.#clock() / 1000 };
  }

  #log(exchange: Exchange): void {
    const { request, response, call, match, identity, requestId, path } = exchange;
    const endMs = this.#clock();
    const ms = this.#deadlines.nowMs() - exchange.startedMs;
    if (call?.wasCut) this.#metrics.cut();
    const fault = exchange.fault ?? (call?.wasCut ? "cut" : response.writableFinished ? undefined : "closed");
    const status = response.statusCode;
    this.#metrics.answered(match?.route.path ?? "none", status);
    const entry = {
      requestId,
      method: request.method ?? "",
      route: match?.route.path ?? path.slice(0, 200),
      status,
      key: identity?.name ?? "none",
      ms,
      ...(call?.usage === undefined ? {} : { tokens: call.usage }),
      ...(fault === undefined ? {} : { fault }),
    };
    this.#options.log?.(accessLine(entry, new Date(endMs)));
    if (match !== undefined && match.route.scope !== "none") this.#record(exchange, endMs - ms, endMs);
  }

  /** Keys in use and what they asked, for the audit and for traces. */
  #record({ request, response, call, match, identity, requestId }: Exchange, startMs: number, endMs: number): void {
    const what = `${request.method} ${match!.route.path}`;
    const model = this.#options.engine.info?.name;
    const tokens = call?.usage && call.usage.prompt + call.usage.generated;
    const isRefused = identity === undefined;
    this.#options.audit?.append(
      {
        who: isRefused ? "refused" : identity.name,
        what,
        requestId,
        ...(model && { model }),
        ...(tokens && { tokens }),
      },
      new Date(endMs),
    );
    this.#options.tracer?.record({
      name: what,
      traceparent: headerText(request.headers.traceparent),
      startMs,
      endMs,
      isError: response.statusCode >= 500,
      attributes: {
        "http.request.method": request.method,
        "http.route": match!.route.path,
        "http.response.status_code": response.statusCode,
        "gen_ai.system": "freehold",
        "gen_ai.request.model": model,
        "gen_ai.usage.input_tokens": call?.usage?.prompt,
        "gen_ai.usage.output_tokens": call?.usage?.generated,
        "freehold.request_id": requestId,
      },
    });
  }
}

/** A request, its answer, and what became known on the way. */
class Exchange {
  readonly request: IncomingMessage;
  readonly response: ServerResponse;
  readonly requestId: string;
  readonly startedMs: number;
  path = "/";
  match: RouteMatch | undefined;
  identity: Identity | undefined;
  call: HttpCall | undefined;
  fault: string | undefined;

  constructor(request: IncomingMessage, response: ServerResponse, startedMs: number) {
    this.request = request;
    this.response = response;
    this.startedMs = startedMs;
    this.requestId = requestIdOf(request.headers["x-request-id"]);
  }

  /** Answers a fault: as a status while nothing was sent, as an event in a stream. */
  fail(error: unknown, dialect: ErrorDialect): void {
    const { response, call, requestId } = this;
    const { status, headers, body, code } = errorAnswer(error, dialect, requestId);
    this.fault = code;
    if (code === "internal") process.stderr.write(`error: ${requestId}: ${stackOf(error)}\n`);
    if (response.destroyed || response.writableEnded) return;
    if (response.headersSent) {
      call?.stream?.send(JSON.stringify(body), "error");
      if (call?.stream === undefined) response.destroy();
      else call.stream.end();
      return;
    }
    const text = JSON.stringify(body);
    const length = { "content-type": "application/json; charset=utf-8", "content-length": Buffer.byteLength(text) };
    response.writeHead(status, { ...headers, ...length }).end(text);
    if (headers.connection === "close") discardRest(this.request);
  }
}

const securityHeaders: readonly (readonly [string, string])[] = [
  ["x-content-type-options", "nosniff"],
  ["referrer-policy", "no-referrer"],
];

/** Throws an HttpError (503) while the model loads. */
function requireEngineInfo({ info, status }: EnginePort): EngineInfo {
  if (info !== undefined) return info;
  throw new HttpError(503, `The model is loading: ${Math.floor(100 * status.loaded)} %`, {
    code: "loading",
    retryAfterSeconds: 5,
  });
}

function refuseBody({ headers }: IncomingMessage): void {
  if (headers["transfer-encoding"] === undefined && Number(headers["content-length"] ?? 0) === 0) return;
  throw new HttpError(400, "A request of this method has no body", {
    code: "unexpected-body",
    headers: { connection: "close" },
  });
}

/** Lets a client that still writes read its answer: what it sends is dropped for a moment, then the connection ends. */
function discardRest(request: IncomingMessage): void {
  request.resume();
  const { socket } = request;
  setTimeout(() => socket.destroy(), 500).unref();
}

function headerText(value: string | string[] | undefined): string | undefined {
  return typeof value === "string" ? value : undefined;
}

function stackOf(error: unknown): string {
  return error instanceof Error ? (error.stack ?? error.message) : String(error);
}
