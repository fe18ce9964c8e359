/** From a configuration to a gateway that listens: files are read, logs opened, routes loaded. The same in one process or in three. */
import { readFileSync } from "node:fs";
import type { EnginePort } from "../../engine/batching/engine-port.ts";
import { openTokenizer } from "../../engine/load-model.ts";
import { UsageError } from "../../errors.ts";
import { createGateway, type Gateway, type GatewayOptions, type ReloadableOptions } from "../gateway.ts";
import { ConversationMemory } from "../generation/conversation-memory.ts";
import type { TlsOptions } from "../http/http-server.ts";
import { Keyring, parseKeyFile } from "../keys.ts";
import { openLog } from "../observability/access-log.ts";
import { AuditLog } from "../observability/audit-log.ts";
import { Tracer } from "../observability/traces.ts";
import type { Route } from "../route.ts";
import { adminPlace, isLoopback, type ServeConfig } from "../serve-config.ts";
import { type BoundHandles, type Listening, listen } from "./listen.ts";
import { moduleBeside } from "./module-path.ts";

export interface GatewayHostParts {
  readonly engine: EnginePort;
  readonly engineRestarts?: () => number;
  readonly version: string;
  /** What is bound already (the supervisor's); without it, the places of the configuration. */
  readonly handles?: BoundHandles | undefined;
}

export class GatewayHost {
  readonly gateway: Gateway;
  readonly url: string;
  /** Where the routes of those who run the server are, if they have a place of their own. */
  readonly adminUrl: string | undefined;
  readonly #audit: AuditLog | undefined;
  readonly #close: () => Promise<void>;

  private constructor(
    gateway: Gateway,
    { url, adminUrl }: Listening,
    audit: AuditLog | undefined,
    close: () => Promise<void>,
  ) {
    this.gateway = gateway;
    this.url = url;
    this.adminUrl = adminUrl;
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
    const memory = await openMemory(config);
    const routes = await loadRoutes(config, memory);
    const { handles, ...port } = parts;
    const fixed = { ...port, tokenizer, dialect, routes, log: log.write, audit, tracer, tls };
    const gateway = createGateway({ ...fixed, ...reloadable(config), ...bounds(config) });
    const listening = await listen(gateway, config, handles);
    audit?.append({ who: "server", what: "start" }, new Date());
    return new GatewayHost(gateway, listening, audit, async () => {
      listening.close();
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

function bounds(config: ServeConfig): Pick<GatewayOptions, "http" | "body" | "keep" | "admin"> {
  const { headersTimeoutMs, requestTimeoutMs, maxConnections } = config;
  const admin = adminPlace(config);
  return {
    keep: given({ retentionMs: config.answerRetentionMs, totalBytes: config.answerMemoryBytes }),
    ...(admin && { admin: { isTrusted: "path" in admin } }),
    http: given({ headersTimeoutMs, requestTimeoutMs, maxConnections }),
    body: given({
      bytes: config.maxBodyBytes,
      jsonValues: config.maxJsonValues,
      jsonParts: config.maxJsonParts,
    }),
  };
}

function given<T extends object>(options: T): { [K in keyof T]?: Exclude<T[K], undefined> } {
  return Object.fromEntries(Object.entries(options).filter(([, value]) => value !== undefined)) as typeof options;
}

/** The routes of the API: a function `apiRoutes` of a module that is named. */
async function loadRoutes(
  { routesModule, routesOptions }: ServeConfig,
  memory: ConversationMemory | undefined,
): Promise<readonly Route[]> {
  const module = (await import(routesModule ?? moduleBeside(import.meta.url, "../api/routes"))) as {
    apiRoutes(options: object): readonly Route[];
  };
  return module.apiRoutes(memory === undefined ? routesOptions : { ...routesOptions, memory });
}

/** What a full disk or a folder of somebody else refuses is remembered until the server stops. */
async function openMemory({ turnDirectory }: ServeConfig): Promise<ConversationMemory | undefined> {
  if (turnDirectory === undefined) return undefined;
  const memory = await ConversationMemory.open(turnDirectory);
  if (memory.reason !== "") warn(`Conversations are not remembered on disk: ${memory.reason}`);
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

function warn(message: string): void {
  process.stderr.write(`warning: ${message}\n`);
}
