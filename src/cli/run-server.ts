/** What `freehold serve` does. A file of its own: the other commands start without what a server needs. */
import { readFileSync } from "node:fs";
import { join, resolve } from "node:path";
import type { Command } from "commander";
import { withoutUndefined } from "../engine/without-undefined.ts";
import type { FreeholdError } from "../errors.ts";
import { defaultCacheDirectory } from "../server/cache-directory.ts";
import { SingleProcess } from "../server/processes/single-process.ts";
import { Supervisor } from "../server/processes/supervisor.ts";
import {
  readServeConfig,
  resolveServeConfig,
  type ServeConfig,
  type ServeConfigInput,
} from "../server/serve-config.ts";
import { terminalOf } from "./model-options.ts";
import type { ServeOptions } from "./serve.ts";
import { exitStatus, type Terminal } from "./terminal.ts";

export async function serve(all: ServeOptions, self: Command): Promise<void> {
  // What was not given leaves the configuration file its word.
  const isGiven = ([name]: [string, unknown]) => self.getOptionValueSource(name) !== "default";
  const options = Object.fromEntries(Object.entries(all).filter(isGiven)) as ServeOptions;
  const terminal = terminalOf(options);
  const read = () => configOf(options);
  const config = read();
  const over = Promise.withResolvers<void>();
  // A fault before the first URL is thrown by the start as well.
  over.promise.catch(() => undefined);
  const server = await start(config, terminal, (error) => over.reject(error));
  const url = await server.url();
  const adminUrl = await server.adminUrl();
  if (terminal.json) await terminal.writeJson({ url, pid: process.pid, ...(adminUrl && { adminUrl }) });
  else await terminal.write(`${url}\n`);
  if (adminUrl !== undefined) terminal.note(`note: Metrics and status are at ${adminUrl}`);
  obeySignals({ server, read, terminal, drainMs: config.drainMs, onStopped: over.resolve });
  await over.promise;
  // What is left are handles of libraries; the work is done.
  process.exit(process.exitCode ?? exitStatus.done);
}

interface Server {
  url(): Promise<string>;
  adminUrl(): Promise<string | undefined>;
  reload(config: ServeConfig): void;
  stop(limitMs: number): Promise<void>;
}

/** A signal while the model loads ends the start. */
async function start(
  config: ServeConfig,
  terminal: Terminal,
  onFatal: (error: FreeholdError) => void,
): Promise<Server> {
  const early = () => process.exit(exitStatus.interrupted);
  process.on("SIGINT", early).on("SIGTERM", early);
  const hooks = {
    version: version(),
    onProgress: (loaded: number) => terminal.progress(`loading ${Math.floor(100 * loaded)} %`),
    onNote: (text: string) => terminal.note(`note: ${text}`),
    onFatal,
  };
  try {
    return config.singleProcess ? await SingleProcess.start(config, hooks) : await Supervisor.start(config, hooks);
  } finally {
    terminal.clearProgress();
    process.off("SIGINT", early).off("SIGTERM", early);
  }
}

function obeySignals(parts: {
  readonly server: Server;
  read(): ServeConfig;
  readonly terminal: Terminal;
  readonly drainMs: number;
  onStopped(): void;
}): void {
  const { server, read, terminal, drainMs, onStopped } = parts;
  let isStopping = false;
  const stop = () => {
    const limitMs = isStopping ? 0 : drainMs;
    isStopping = true;
    void server.stop(limitMs).then(onStopped);
  };
  process.on("SIGINT", stop).on("SIGTERM", stop);
  process.on("SIGHUP", () => {
    try {
      server.reload(read());
      terminal.note("note: The configuration was read again");
    } catch (error) {
      terminal.note(`warning: Not reloaded: ${(error as Error).message}`);
    }
  });
}

/** Options before the file before the defaults. */
function configOf(options: ServeOptions): ServeConfig {
  const file = options.config === undefined ? {} : readServeConfig(options.config);
  const given: ServeConfigInput = { ...file, ...withoutUndefined(fromOptions(options)) };
  const engineOptions = { ...file.engineOptions, ...withoutUndefined(engineOptionsOf(options)) };
  return resolveServeConfig({ ...given, engineOptions }, options.config ?? "options of serve");
}

function fromOptions(options: ServeOptions) {
  const { host, port, unix, admin, keys, insecure, cors, allowHost, tlsCert, tlsKey, tlsClientCa } = options;
  const { maxQueue, maxQueueTokens, maxQueuePerKey, audit, otlp, singleProcess, drain, wedge, sleepAfter, log } =
    options;
  return {
    ...{ host, port, unix, admin, keys, insecure, cors, allowHost, tlsCert, tlsKey, tlsClientCa },
    ...{ maxQueue, maxQueueTokens, maxQueuePerKey, audit, otlp, singleProcess },
    log: log ?? (options.quiet ? "off" : undefined),
    model: options.model === undefined ? undefined : resolve(options.model),
    turnDirectory: turnDirectoryOf(options),
    drainMs: drain === undefined ? undefined : 1000 * drain,
    wedgeMs: wedge === undefined ? undefined : 1000 * wedge,
    sleepAfterMs: sleepAfter === undefined ? undefined : 1000 * sleepAfter,
  };
}

/** Turns are remembered where computed prompts are: the one is of little use without the other. */
function turnDirectoryOf({ cacheDir, cacheDisk }: ServeOptions): string | undefined {
  if (cacheDisk === 0) return undefined;
  return join(cacheDir === undefined ? defaultCacheDirectory() : resolve(cacheDir), "turns");
}

function engineOptionsOf(options: ServeOptions) {
  const { device, threads, activations, instructions, context, engramMemory } = options;
  const { cacheDir, cacheDisk, cacheMemory, maxBatch, name } = options;
  const { images, maxImages, maxImageBytes, maxImagePixels } = options;
  return {
    ...{ images, maxImages, maxImageBytes, maxImagePixels },
    ...{ device, threads, activations, instructions },
    contextLength: context,
    engramCacheBytes: engramMemory === undefined ? undefined : engramMemory * 2 ** 20,
    cacheDirectory: cacheDir === undefined ? undefined : resolve(cacheDir),
    cacheDiskBytes: cacheDisk,
    cacheMemoryBytes: cacheMemory,
    maxRunning: maxBatch,
    servedName: name,
    drafting: options.draft,
  };
}

function version(): string {
  const file = new URL("../../package.json", import.meta.url);
  return (JSON.parse(readFileSync(file, "utf8")) as { version: string }).version;
}
