/**
 * The gateway: from a socket to a route and back. Every request passes the gates (http/gates.ts), gives its body within bounds
 * (http/read-body.ts) and runs its route (call-runner.ts); a fault at any of them is answered in the shape of the route's API, and
 * each request ends in one line of the log. It knows no dialect of an API and no model: routes are given, and the engine is a port.
 */
import type { IncomingMessage, Server, ServerResponse } from "node:http";
import type { DialectName } from "../chat/dialect.ts";
import type { EnginePort } from "../engine/batching/engine-port.ts";
import type { Tokenizer } from "../tokenizer/tokenizer.ts";
import { type KeepLimits, KeptAnswers } from "./answers/kept-answers.ts";
import { streamRoutes } from "./answers/stream-routes.ts";
import { CallRunner } from "./call-runner.ts";
import { Exchange } from "./http/exchange.ts";
import { Gates } from "./http/gates.ts";
import { createHttpServer, defaultHttpLimits, type HttpLimits, type TlsOptions } from "./http/http-server.ts";
import { KeepAlive } from "./http/keep-alive.ts";
import type { OriginPolicy } from "./http/origin-check.ts";
import { type BodyLimits, BodyReader, defaultBodyLimits } from "./http/read-body.ts";
import { defaultStreamLimits, type StreamLimits } from "./http/server-sent-events.ts";
import type { Keyring } from "./keys.ts";
import { Admission, defaultQueueLimits, type QueueLimits } from "./limits/admission.ts";
import { type Deadlines, defaultTimeLimits, realDeadlines, type TimeLimits } from "./limits/call-engine.ts";
import type { WriteLine } from "./observability/access-log.ts";
import type { AuditLog } from "./observability/audit-log.ts";
import { EngineProgress, type Readiness } from "./observability/engine-progress.ts";
import { ExchangeLog } from "./observability/exchange-log.ts";
import { Metrics } from "./observability/metrics.ts";
import { operationRoutes } from "./observability/operation-routes.ts";
import type { Tracer } from "./observability/traces.ts";
import type { Route } from "./route.ts";

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
  /** Of answers that are kept for clients with an Idempotency-Key. */
  readonly keep?: Partial<KeepLimits>;
  /** A listener of its own for the routes of those who run the server; the public one then has none of them. */
  readonly admin?: AdminListener | undefined;
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

export interface AdminListener {
  /** Only its owner can open it, so it asks for no key: a socket file. */
  readonly isTrusted: boolean;
}

/** What a reload may change while requests run. */
export type ReloadableOptions = Pick<GatewayOptions, "keyring" | "origins" | "queue" | "times">;

export function createGateway(options: GatewayOptions): Gateway {
  return new Gateway(options);
}

export class Gateway {
  /** Not yet listening: `server.listen(...)`. */
  readonly server: Server;
  /** Of the routes of those who run the server, where they have a listener of their own. Never with TLS: it stays on this machine. */
  readonly adminServer: Server | undefined;
  readonly #options: GatewayOptions;
  readonly #body: BodyReader;
  readonly #keepAlive: KeepAlive;
  readonly #admission: Admission;
  readonly #metrics: Metrics;
  readonly #progress: EngineProgress;
  readonly #progressTimer: NodeJS.Timeout;
  readonly #deadlines: Deadlines;
  readonly #runner: CallRunner;
  readonly #log: ExchangeLog;
  #settings: ReloadableOptions;
  #isDraining = false;

  constructor(options: GatewayOptions) {
    this.#options = options;
    this.#settings = options;
    this.#deadlines = options.deadlines ?? realDeadlines;
    const { engine, log, audit, tracer, clock = Date.now } = options;
    const nowMs = () => this.#deadlines.nowMs();
    this.#keepAlive = new KeepAlive(options.silenceMs === undefined ? {} : { silenceMs: options.silenceMs });
    this.#progress = new EngineProgress(engine, nowMs);
    this.#progressTimer = setInterval(() => this.#progress.observe(), 250).unref();
    const numbers = {
      streams: () => this.openStreams,
      engineRestarts: options.engineRestarts ?? (() => 0),
      isReady: () => this.readiness.isReady,
    };
    this.#metrics = new Metrics(engine, numbers);
    const queue = { ...defaultQueueLimits, ...options.queue };
    this.#admission = new Admission(
      queue,
      () => nowMs() / 1000,
      (reason) => this.#metrics.refused(reason),
    );
    this.#body = new BodyReader({ ...defaultBodyLimits, ...options.body });
    this.#log = new ExchangeLog({ engine, metrics: this.#metrics, log, audit, tracer, clock, nowMs });
    const kept = new KeptAnswers(options.keep ?? {}, this.#deadlines);
    this.#runner = this.#createRunner(kept, clock);
    const own = operationRoutes({ readiness: () => this.readiness, metrics: this.#metrics, ...numbers });
    const routes = [...options.routes, ...streamRoutes(kept)];
    const { open, admin } = placeRoutes(routes, own, options.admin !== undefined);
    this.server = this.#createServer(this.#gates(open, false), options.tls);
    if (options.admin !== undefined)
      this.adminServer = this.#createServer(this.#gates(admin, options.admin.isTrusted), undefined);
  }

  get readiness(): Readiness {
    return this.#isDraining ? { isReady: false, why: "the server is draining" } : this.#progress.readiness;
  }

  /** Streams, and readers of kept answers, that are open. */
  get openStreams(): number {
    return this.#keepAlive.size;
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
    await Promise.race([this.#runner.idle(), deadline.promise]);
    stop();
    this.#runner.stopAll();
  }

  /** Closes the ports and every connection. */
  async close(): Promise<void> {
    this.#runner.stopAll();
    clearInterval(this.#progressTimer);
    this.#keepAlive[Symbol.dispose]();
    this.#metrics[Symbol.dispose]();
    const servers = [this.server, ...(this.adminServer === undefined ? [] : [this.adminServer])];
    const closed = servers.map((server) => new Promise<void>((resolve) => server.close(() => resolve())));
    for (const server of servers) server.closeIdleConnections();
    // What was just aborted gets its last event out.
    await new Promise((resolve) => setImmediate(resolve));
    for (const server of servers) server.closeAllConnections();
    await Promise.all(closed);
  }

  #createRunner(kept: KeptAnswers, clock: () => number): CallRunner {
    const { engine, tokenizer, dialect, version, stream } = this.#options;
    return new CallRunner({
      ...{ engine, tokenizer, dialect, version, clock },
      keepAlive: this.#keepAlive,
      admission: this.#admission,
      metrics: this.#metrics,
      kept,
      streamLimits: { ...defaultStreamLimits, ...stream },
      deadlines: this.#deadlines,
      timeLimits: () => ({ ...defaultTimeLimits, ...this.#settings.times }),
    });
  }

  #gates(routes: readonly Route[], isTrusted: boolean): Gates {
    return new Gates({
      routes,
      isTrusted,
      keyring: () => this.#settings.keyring,
      origins: () => (isTrusted ? undefined : this.#settings.origins),
      isDraining: () => this.#isDraining,
    });
  }

  #createServer(gates: Gates, tls: TlsOptions | undefined): Server {
    const limits = { ...defaultHttpLimits, ...this.#options.http };
    return createHttpServer((...args) => void this.#serve(gates, ...args), limits, tls);
  }

  async #serve(
    gates: Gates,
    request: IncomingMessage,
    response: ServerResponse,
    expectsContinue: boolean,
  ): Promise<void> {
    const exchange = new Exchange(request, response, this.#deadlines.nowMs());
    response.on("error", () => undefined);
    request.on("error", () => undefined);
    response.once("close", () => this.#log.note(exchange));
    try {
      const url = gates.pass(exchange);
      if (url !== undefined) await this.#answer(exchange, url, expectsContinue);
    } catch (error) {
      exchange.fail(error, gates.dialectOf(exchange));
    }
  }

  async #answer(exchange: Exchange, url: URL, expectsContinue: boolean): Promise<void> {
    const { method, scope } = exchange.match!.route;
    // Whoever counts tokens is about to ask as well: a model that sleeps is loaded while the prompt is still read.
    if (method === "POST" && scope === "infer") this.#options.engine.wake?.();
    using content = await this.#body.read(exchange, expectsContinue);
    await this.#runner.run(exchange, url, content);
  }
}

/**
 * The routes of each listener. An API may bring a route of its own for "/", as Anthropic's clients ask for HEAD /. With a listener for
 * those who run the server, what needs a scope of theirs is there alone, and so is the page, which shows it; probes are at both.
 */
function placeRoutes(api: readonly Route[], own: readonly Route[], hasAdmin: boolean) {
  const taken = new Set(api.map(({ method, path }) => `${method} ${path}`));
  const all = [...api, ...own.filter(({ method, path }) => !taken.has(`${method} ${path}`))];
  if (!hasAdmin) return { open: all, admin: [] };
  const isForAdmin = ({ scope, method, path }: Route) =>
    scope.startsWith("admin:") || (method === "GET" && path === "/");
  return {
    open: all.filter((route) => !isForAdmin(route)),
    admin: [...all.filter(isForAdmin), ...own.filter((route) => !isForAdmin(route))],
  };
}
