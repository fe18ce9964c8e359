/** From a configuration to a gateway that listens: files are read, logs opened, routes loaded. The same in one process or in three. */
import { existsSync, readFileSync, rmSync } from "node:fs";
import { type AddressInfo, connect } from "node:net";
import type { EnginePort } from "../../engine/batching/engine-port.ts";
import { openTokenizer } from "../../engine/load-model.ts";
import { FreeholdError, UsageError } from "../../errors.ts";
import { createGateway, type Gateway, type GatewayOptions, type ReloadableOptions } from "../gateway.ts";
import { StoredTurnMemory } from "../generation/stored-turn-memory.ts";
import type { TlsOptions } from "../http/http-server.ts";
import { Keyring, parseKeyFile } from "../keys.ts";
import { openLog } from "../observability/access-log.ts";
import { AuditLog } from "../observability/audit-log.ts";
import { Tracer } from "../observability/traces.ts";
import type { Route } from "../route.ts";
import { isLoopback, type ServeConfig } from "../serve-config.ts";
import { moduleBeside } from "./module-path.ts";

export interface GatewayHostParts {
  readonly engine: EnginePort;
  readonly engineRestarts?: () => number;
  readonly version: string;
  /** A handle that is bound already (the supervisor's); without it, host and port of the configuration. */
  readonly handle?: unknown;
}

export class GatewayHost {
  readonly gateway: Gateway;
  readonly url: string;
  readonly #audit: AuditLog | undefined;
  readonly #close: () => Promise<void>;

  private constructor(gateway: Gateway, url: string, audit: AuditLog | undefined, close: () => Promise<void>) {
    this.gateway = gateway;
    this.url = url;
    this.#audit = audit;
    this.#close = close;
  }

  /** Throws what is wrong with a file, a port or a certificate. */
  static async start(config: ServeConfig, parts: GatewayHostParts): Promise<GatewayHost> {
    const { tokenizer, dialect } = await openTokenizer(config.model);
    const log = openLog(config.log);
    const audit = config.audit === undefined ? undefined : new AuditLog(config.audit);
    const tracer = config.otlp === undefined ? undefined : new Tracer(config.otlp, parts.version, warn);
    const tls = readTls(config);
    const memory = await openTurnMemory(config);
    const routes = await loadRoutes(config, memory);
    const { handle, ...port } = parts;
    const fixed = { ...port, tokenizer, dialect, routes, log: log.write, audit, tracer, tls };
    const gateway = createGateway({ ...fixed, ...reloadable(config), ...bounds(config) });
    const url = await listen(gateway, config, handle);
    audit?.append({ who: "server", what: "start" }, new Date());
    return new GatewayHost(gateway, url, audit, async () => {
      await gateway.close();
      await tracer?.flush();
      tracer?.[Symbol.dispose]();
      await memory?.close();
      log.close();
    });
  }

  /** Keys, origins and limits of a new configuration; when it is wrong the old one stays, and the error is thrown. */
  reload(config: ServeConfig): void {
    this.gateway.reload(reloadable(config));
    this.#audit?.append({ who: "server", what: "reload" }, new Date());
  }

  async close(): Promise<void> {
    this.#audit?.append({ who: "server", what: "stop" }, new Date());
    await this.#close();
  }
}

function reloadable(config: ServeConfig): ReloadableOptions {
  const { keys, cors, allowHost, unix } = config;
  const perKey = config.maxQueuePerKey;
  return {
    keyring: keys === undefined ? undefined : new Keyring(parseKeyFile(readText(keys, "--keys"), keys)),
    origins: { origins: cors, hosts: allowHost, isUnixSocket: unix !== undefined, isLoopback: isLoopback(config) },
    queue: given({
      maxQueuedRequests: config.maxQueue,
      maxQueuedTokens: config.maxQueueTokens,
      maxQueuedRequestsPerKey: perKey ?? config.maxQueue,
      maxQueuedTokensPerKey: config.maxQueueTokens,
    }),
    times: given({
      queueMs: config.queueTimeoutMs,
      firstTokenMs: config.firstTokenTimeoutMs,
      totalMs: config.totalTimeoutMs,
    }),
  };
}

function bounds(config: ServeConfig): Pick<GatewayOptions, "http" | "body"> {
  const { headersTimeoutMs, requestTimeoutMs, maxConnections } = config;
  return {
    http: given({ headersTimeoutMs, requestTimeoutMs, maxConnections }),
    body: given({ bytes: config.maxBodyBytes, jsonValues: config.maxJsonValues }),
  };
}

function given<T extends object>(options: T): { [K in keyof T]?: Exclude<T[K], undefined> } {
  return Object.fromEntries(Object.entries(options).filter(([, value]) => value !== undefined)) as typeof options;
}

/** The routes of the API: a function `apiRoutes` of a module that is named. */
async function loadRoutes(
  { routesModule, routesOptions }: ServeConfig,
  memory: StoredTurnMemory | undefined,
): Promise<readonly Route[]> {
  const module = (await import(routesModule ?? moduleBeside(import.meta.url, "../api/routes"))) as {
    apiRoutes(options: object): readonly Route[];
  };
  return module.apiRoutes(memory === undefined ? routesOptions : { ...routesOptions, memory });
}

/** What a full disk or a folder of somebody else refuses is remembered until the server stops. */
async function openTurnMemory({ turnDirectory }: ServeConfig): Promise<StoredTurnMemory | undefined> {
  if (turnDirectory === undefined) return undefined;
  const memory = await StoredTurnMemory.open(turnDirectory);
  if (memory.reason !== "") warn(`Turns are not remembered on disk: ${memory.reason}`);
  return memory;
}

function readTls({ tlsCert, tlsKey, tlsClientCa }: ServeConfig): TlsOptions | undefined {
  if (tlsCert === undefined || tlsKey === undefined) return undefined;
  const pair = { certificate: readText(tlsCert, "--tls-cert"), key: readText(tlsKey, "--tls-key") };
  return tlsClientCa === undefined ? pair : { ...pair, clientAuthority: readText(tlsClientCa, "--tls-client-ca") };
}

function readText(path: string, option: string): string {
  try {
    return readFileSync(path, "utf8");
  } catch (cause) {
    throw new UsageError(`The file of ${option} cannot be read: ${(cause as Error).message}`, { where: path, cause });
  }
}

/** Connections that wait to be accepted: with Node's 511, a burst of 3,500 a second lost some, and each came back a second later. */
const backlog = 4096;

async function listen({ server }: Gateway, config: ServeConfig, handle: unknown): Promise<string> {
  if (handle === undefined && config.unix !== undefined) await removeStaleSocket(config.unix);
  const target = config.unix === undefined ? { host: config.host, port: config.port } : { path: config.unix };
  await new Promise<void>((resolve, reject) => {
    server.once("error", (error: NodeJS.ErrnoException) => reject(listenError(error, config)));
    if (handle === undefined) server.listen({ ...target, backlog }, resolve);
    else server.listen(handle, backlog, resolve);
  });
  return urlOf(config, server.address());
}

/** A socket file that nobody listens on is left over from a server that was killed. */
export async function removeStaleSocket(path: string): Promise<void> {
  if (!existsSync(path)) return;
  const isInUse = await new Promise<boolean>((resolve) => {
    const socket = connect(path, () => resolve(true));
    socket.on("connect", () => socket.destroy());
    socket.on("error", (error: NodeJS.ErrnoException) => resolve(error.code !== "ECONNREFUSED"));
  });
  if (!isInUse) rmSync(path);
}

export function listenError(
  { code, message }: NodeJS.ErrnoException,
  { host, port, unix }: ServeConfig,
): FreeholdError {
  const place = unix ?? `${host}:${port}`;
  if (code === "EADDRINUSE") {
    return new FreeholdError(`${place} is in use by another program`, {
      code: "port-in-use",
      where: "--port",
      hint: "Choose another with --port (0: any that is free)",
    });
  }
  if (code === "EACCES") {
    return new FreeholdError(`${place} may not be used`, {
      code: "port-denied",
      where: "--port",
      hint: "Ports below 1024 need rights",
    });
  }
  return new FreeholdError(`${place} cannot be listened on: ${message}`, { code: "listen", where: "--host" });
}

function urlOf({ host, unix, tlsCert }: ServeConfig, address: string | AddressInfo | null): string {
  if (unix !== undefined) return `unix:${unix}`;
  const scheme = tlsCert === undefined ? "http" : "https";
  return `${scheme}://${host.includes(":") ? `[${host}]` : host}:${(address as AddressInfo).port}`;
}

function warn(message: string): void {
  process.stderr.write(`warning: ${message}\n`);
}
