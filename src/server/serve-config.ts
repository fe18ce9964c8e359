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
  host: z.string().min(1).default("127.0.0.1"),
  port: z.int().min(0).max(65535).default(8080),
  /** A Unix socket in place of host and port. */
  unix: z.string().min(1).optional(),
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
  maxConnections: count.optional(),
  headersTimeoutMs: milliseconds.optional(),
  requestTimeoutMs: milliseconds.optional(),
  queueTimeoutMs: milliseconds.optional(),
  firstTokenTimeoutMs: milliseconds.optional(),
  totalTimeoutMs: milliseconds.optional(),
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

export function isLoopback({ host, unix }: ServeConfig): boolean {
  return unix !== undefined || isLoopbackName(host.toLowerCase());
}

function checkTogether(config: ServeConfig, where: string): void {
  if ((config.tlsCert === undefined) !== (config.tlsKey === undefined)) {
    throw new UsageError("A certificate and its key belong together", {
      where,
      hint: "Give both --tls-cert and --tls-key",
    });
  }
  if (isLoopback(config) || config.keys !== undefined || config.insecure) return;
  throw new UsageError(`Listening on ${config.host} without keys would let everybody in`, {
    code: "keys-needed",
    where,
    hint: "Make keys (freehold keys add NAME --file keys.json) and give --keys keys.json, or say --insecure",
  });
}

function reasonOf(error: unknown): string {
  return error instanceof FreeholdError ? error.message : (error as Error).message;
}
