/** freehold serve: the HTTP server, as three processes or as one. */
import { readFileSync } from "node:fs";
import { join, resolve } from "node:path";
import { type Command, InvalidArgumentError, Option } from "commander";
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
import { command, type ModelOptions, number, terminalOf, wholeNumber, withModelOptions } from "./model-options.ts";
import { exitStatus, type Terminal } from "./terminal.ts";

interface ServeOptions extends ModelOptions {
  readonly config?: string;
  readonly host?: string;
  readonly port?: number;
  readonly unix?: string;
  readonly keys?: string;
  readonly insecure?: boolean;
  readonly cors?: string[];
  readonly allowHost?: string[];
  readonly tlsCert?: string;
  readonly tlsKey?: string;
  readonly tlsClientCa?: string;
  readonly cacheDir?: string;
  readonly cacheDisk?: number;
  readonly cacheMemory?: number;
  readonly maxBatch?: number;
  readonly maxQueue?: number;
  readonly maxQueueTokens?: number;
  readonly maxQueuePerKey?: number;
  readonly name?: string;
  readonly log?: string;
  readonly audit?: string;
  readonly otlp?: string;
  readonly drain?: number;
  readonly wedge?: number;
  readonly singleProcess?: boolean;
}

export function addServe(program: Command): void {
  const examples = [
    "freehold serve",
    "freehold serve --model ./DeepSeek-V4-Flash --port 9000 --cache-disk 50",
    "freehold serve --host 0.0.0.0 --keys keys.json --tls-cert cert.pem --tls-key key.pem",
  ];
  const target = withModelOptions(
    command(program, "serve", "Serve the OpenAI, Anthropic and DeepSeek HTTP APIs", examples),
  );
  withListening(target);
  withLimits(target);
  target
    .option("--config <file>", "options from a JSON file; those given here go before it")
    .option("--name <name>", "name of the model that clients see")
    .option("--log <file>", 'access log: a file, "-" for stderr or "off" (default: "-")')
    .option("--audit <file>", "log of who used which key, each line chained to the one before by its hash")
    .option("--otlp <url>", "send traces to an OpenTelemetry collector")
    .option("--single-process", "gateway and engine in one process")
    .action(serve);
}

function withListening(target: Command): void {
  target
    .option("--host <address>", "where to listen (default: 127.0.0.1)")
    .option("--port <n>", "0 takes any that is free (default: 8080)", wholeNumber(0))
    .option("--unix <path>", "listen on a Unix socket instead")
    .option("--keys <file>", "API keys, made with freehold keys add; SIGHUP reads it again")
    .option("--insecure", "listen beyond this machine without keys")
    .option("--cors <origin...>", "origins whose pages may call the server")
    .option("--allow-host <name...>", "names that the server answers to, beside those of this machine")
    .option("--tls-cert <file>", "certificate (PEM)")
    .option("--tls-key <file>", "its key (PEM)")
    .option("--tls-client-ca <file>", "take only clients whose certificate this authority has signed");
}

function withLimits(target: Command): void {
  target
    .option("--cache-dir <folder>", "where computed prompts are kept (default: the system's cache folder)")
    .option("--cache-disk <GB>", "room for them on disk, or off (default: 8)", gigabytes)
    .option("--cache-memory <GB>", "room for them in memory (default: an eighth, 4 at most)", gigabytes)
    .addOption(new Option("--max-batch <n>", "requests that are computed at the same time").argParser(wholeNumber(1)))
    .option("--max-queue <n>", "requests that may wait (default: 256)", wholeNumber(1))
    .option("--max-queue-tokens <n>", "tokens that may wait (default: 8,000,000)", wholeNumber(1))
    .option("--max-queue-per-key <n>", "requests of one key that may wait", wholeNumber(1))
    .option("--drain <seconds>", "how long running requests may go on after SIGTERM (default: 30)", number)
    .option("--wedge <seconds>", "kill an engine that makes no step for so long (default: 60)", number);
}

async function serve(all: ServeOptions, self: Command): Promise<void> {
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
  if (terminal.json) await terminal.writeJson({ url, pid: process.pid });
  else await terminal.write(`${url}\n`);
  obeySignals({ server, read, terminal, drainMs: config.drainMs, onStopped: over.resolve });
  await over.promise;
  // What is left are handles of libraries; the work is done.
  process.exit(process.exitCode ?? exitStatus.done);
}

interface Server {
  url(): Promise<string>;
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
  const { host, port, unix, keys, insecure, cors, allowHost, tlsCert, tlsKey, tlsClientCa } = options;
  const { maxQueue, maxQueueTokens, maxQueuePerKey, audit, otlp, singleProcess, drain, wedge, log } = options;
  return {
    ...{ host, port, unix, keys, insecure, cors, allowHost, tlsCert, tlsKey, tlsClientCa },
    ...{ maxQueue, maxQueueTokens, maxQueuePerKey, audit, otlp, singleProcess },
    log: log ?? (options.quiet ? "off" : undefined),
    model: options.model === undefined ? undefined : resolve(options.model),
    turnDirectory: turnDirectoryOf(options),
    drainMs: drain === undefined ? undefined : 1000 * drain,
    wedgeMs: wedge === undefined ? undefined : 1000 * wedge,
  };
}

/** Turns are remembered where computed prompts are: the one is of little use without the other. */
function turnDirectoryOf({ cacheDir, cacheDisk }: ServeOptions): string | undefined {
  if (cacheDisk === 0) return undefined;
  return join(cacheDir === undefined ? defaultCacheDirectory() : resolve(cacheDir), "turns");
}

function engineOptionsOf(options: ServeOptions) {
  const { device, threads, activations, instructions, context, cacheDir, cacheDisk, cacheMemory, maxBatch, name } =
    options;
  return {
    ...{ device, threads, activations, instructions },
    contextLength: context,
    cacheDirectory: cacheDir === undefined ? undefined : resolve(cacheDir),
    cacheDiskBytes: cacheDisk,
    cacheMemoryBytes: cacheMemory,
    maxRunning: maxBatch,
    servedName: name,
  };
}

function gigabytes(text: string): number {
  if (text === "off") return 0;
  const value = Number(text);
  if (text.trim() !== "" && Number.isFinite(value) && value >= 0) return Math.floor(value * 1e9);
  throw new InvalidArgumentError('Give gigabytes, or "off".');
}

function version(): string {
  const file = new URL("../../package.json", import.meta.url);
  return (JSON.parse(readFileSync(file, "utf8")) as { version: string }).version;
}
