/**
 * What `freehold serve` is told, by options or by a file (--config serve.json) with the same names. Plain data, for it travels to the
 * other processes; checked here once, with an error that names the entry.
 */
import { readFileSync } from "node:fs";
import { z } from "zod";
import { FreeholdError, UsageError } from "../errors.ts";
import { isLoopbackName } from "./http/origin-check.ts";

const milliseconds = z.number().positive();
const count = z.int().positive();

const configSchema = z.strictObject({
  /** One address, or several with commas between. */
  host: z.string().min(1).default("127.0.0.1"),
  port: z.int().min(0).max(65535).default(8080),
  /** A Unix socket in place of host and port. */
  unix: z.string().min(1).optional(),
  /** Where /metrics and the like are instead of beside the API: a port of this machine, or the path of a Unix socket. */
  admin: z.string().min(1).optional(),
  tlsCert: z.string().optional(),
  tlsKey: z.string().optional(),
  /** Certificate of the authority that signs clients' certificates: only such clients get in. */
  tlsClientCa: z.string().optional(),
  /** File of keys (freehold keys add). */
  keys: z.string().optional(),
  /** Listen beyond this machine without keys. */
  insecure: z.boolean().default(false),
  cors: z.array(z.string().min(1)).default([]),
  allowHost: z.array(z.string().min(1)).default([]),
  /** "-" is stderr, "off" nothing. */
  log: z.string().min(1).default("-"),
  audit: z.string().optional(),
  otlp: z.url({ protocol: /^https?$/ }).optional(),
  maxQueue: count.optional(),
  maxQueueTokens: count.optional(),
  maxQueuePerKey: count.optional(),
  maxBodyBytes: count.max(2 ** 30).optional(),
  maxJsonValues: count.optional(),
  maxJsonParts: count.optional(),
  maxConnections: count.optional(),
  headersTimeoutMs: milliseconds.optional(),
  requestTimeoutMs: milliseconds.optional(),
  queueTimeoutMs: milliseconds.optional(),
  firstTokenTimeoutMs: milliseconds.optional(),
  totalTimeoutMs: milliseconds.optional(),
  /** How long an answer is kept for a client with an Idempotency-Key, and the memory of all of them. */
  answerRetentionMs: milliseconds.optional(),
  answerMemoryBytes: z.int().min(0).optional(),
  drainMs: milliseconds.default(30_000),
  /** An engine without a heartbeat or a step for so long is killed. */
  wedgeMs: milliseconds.default(60_000),
  /** Without work for so long the model's memory is given back; the next request loads it again. Default: never. */
  sleepAfterMs: milliseconds.max(2 ** 31 - 1).optional(),
  /** How long requests wait for an engine that is started again. */
  revivalMs: milliseconds.optional(),
  singleProcess: z.boolean().default(false),
  /** Model and engine; what they mean is the engine module's affair. */
  model: z.string().optional(),
  engineModule: z.string().optional(),
  engineOptions: z.record(z.string(), z.unknown()).default({}),
  /** Where turns are remembered across restarts; without it until the server stops. */
  turnDirectory: z.string().optional(),
  routesModule: z.string().optional(),
  routesOptions: z.record(z.string(), z.unknown()).default({}),
});

export type ServeConfig = z.infer<typeof configSchema>;
export type ServeConfigInput = z.input<typeof configSchema>;

/** Throws a UsageError that names what is wrong. */
export function resolveServeConfig(input: ServeConfigInput, where = "options of serve"): ServeConfig {
  const result = configSchema.safeParse(input);
  if (!result.success) {
    const [issue] = result.error.issues;
    const name = issue!.path.join(".") || "the file";
    throw new UsageError(`${name}: ${issue!.message}`, { code: "serve-config", where });
  }
  checkTogether(result.data, where);
  return result.data;
}

/** The entries of a configuration file; options of the command line go before them. */
export function readServeConfig(path: string): ServeConfigInput {
  let value: unknown;
  try {
    value = JSON.parse(readFileSync(path, "utf8"));
  } catch (cause) {
    throw new UsageError("The configuration cannot be read", {
      code: "serve-config",
      where: path,
      cause,
      hint: reasonOf(cause),
    });
  }
  const result = configSchema.partial().safeParse(value);
  if (result.success) return value as ServeConfigInput;
  const [issue] = result.error.issues;
  throw new UsageError(`${issue!.path.join(".") || "the file"}: ${issue!.message}`, {
    code: "serve-config",
    where: path,
  });
}

/** What can be listened on. */
export type Place = { readonly path: string } | { readonly host: string; readonly port: number };

/** Where clients come in; the first is the one that is told. */
export function clientPlaces({ host, port, unix }: ServeConfig): readonly Place[] {
  return unix === undefined ? hostsOf(host).map((name) => ({ host: name, port })) : [{ path: unix }];
}

/** Where those come in who run the server, if not with the clients: on this machine alone. */
export function adminPlace({ admin }: ServeConfig): Place | undefined {
  if (admin === undefined) return undefined;
  return /^\d+$/.test(admin) ? { host: "127.0.0.1", port: Number(admin) } : { path: admin };
}

export function isLoopback({ host, unix }: ServeConfig): boolean {
  return unix !== undefined || hostsOf(host).every((name) => isLoopbackName(name.toLowerCase()));
}

function hostsOf(host: string): string[] {
  return host.split(",").map((name) => name.trim());
}

function checkTogether(config: ServeConfig, where: string): void {
  if ((config.tlsCert === undefined) !== (config.tlsKey === undefined)) {
    throw new UsageError("A certificate and its key belong together", {
      where,
      hint: "Give both --tls-cert and --tls-key",
    });
  }
  if (hostsOf(config.host).includes("")) {
    throw new UsageError(`host: there is no address in ${JSON.stringify(config.host)}`, {
      code: "serve-config",
      where,
      hint: "Put one comma between two addresses",
    });
  }
  checkAdmin(config, where);
  if (isLoopback(config) || config.keys !== undefined || config.insecure) return;
  throw new UsageError(`Listening on ${config.host} without keys would let everybody in`, {
    code: "keys-needed",
    where,
    hint: "Make keys (freehold keys add NAME --file keys.json) and give --keys keys.json, or say --insecure",
  });
}

function checkAdmin(config: ServeConfig, where: string): void {
  const place = adminPlace(config);
  if (place === undefined) return;
  const isSame = "path" in place ? place.path === config.unix : place.port !== 0 && place.port === config.port;
  if (("port" in place && place.port > 65535) || (isSame && ("path" in place || config.unix === undefined))) {
    throw new UsageError(`admin: ${config.admin} is no place of its own`, {
      code: "serve-config",
      where,
      hint: "Give another port of this machine, or the path of a Unix socket",
    });
  }
}

function reasonOf(error: unknown): string {
  return error instanceof FreeholdError ? error.message : (error as Error).message;
}
