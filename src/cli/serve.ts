/** freehold serve: the HTTP server, as three processes or as one. */
import { type Command, InvalidArgumentError, Option } from "commander";
import {
  command,
  type DraftOptions,
  type ModelOptions,
  number,
  wholeNumber,
  withDraftOption,
  withModelOptions,
} from "./model-options.ts";

export interface ServeOptions extends ModelOptions, DraftOptions {
  readonly config?: string;
  readonly host?: string;
  readonly port?: number;
  readonly unix?: string;
  readonly admin?: string;
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
  readonly images: boolean;
  readonly maxImages?: number;
  readonly maxImageBytes?: number;
  readonly maxImagePixels?: number;
  readonly maxQueue?: number;
  readonly maxQueueTokens?: number;
  readonly maxQueuePerKey?: number;
  readonly name?: string;
  readonly log?: string;
  readonly audit?: string;
  readonly otlp?: string;
  readonly drain?: number;
  readonly wedge?: number;
  readonly sleepAfter?: number;
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
  withDraftOption(target);
  withListening(target);
  withLimits(target);
  target
    .option("--config <file>", "options from a JSON file; those given here go before it")
    .option("--name <name>", "name of the model that clients see")
    .option("--log <file>", 'access log: a file, "-" for stderr or "off" (default: "-")')
    .option("--audit <file>", "log of who used which key, each line chained to the one before by its hash")
    .option("--otlp <url>", "send traces to an OpenTelemetry collector")
    .option("--single-process", "gateway and engine in one process")
    .action(async (...given: [ServeOptions, Command]) => (await import("./run-server.ts")).serve(...given));
}

function withListening(target: Command): void {
  target
    .option("--host <addresses>", "where to listen; several with commas between (default: 127.0.0.1)")
    .option("--port <n>", "0 takes any that is free (default: 8080)", wholeNumber(0))
    .option("--unix <path>", "listen on a Unix socket instead")
    .option(
      "--admin <place>",
      "a port of this machine or a Unix socket of its own for /metrics, /status.json and the page",
    )
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
    .option("--cache-memory <GB>", "memory of all caches, running requests' too (default: an eighth)", gigabytes)
    .addOption(new Option("--max-batch <n>", "requests that are computed at the same time").argParser(wholeNumber(1)))
    .option("--max-queue <n>", "requests that may wait (default: 256)", wholeNumber(1))
    .option("--max-queue-tokens <n>", "tokens that may wait (default: 8,000,000)", wholeNumber(1))
    .option("--max-queue-per-key <n>", "requests of one key that may wait", wholeNumber(1))
    .option("--no-images", "do not load what reads images")
    .option("--max-images <n>", "images of a request (default: 100)", wholeNumber(1))
    .option("--max-image-bytes <n>", "bytes of an image's file (default: 33554432)", wholeNumber(1))
    .option("--max-image-pixels <n>", "pixels of an image (default: 24000000)", wholeNumber(1))
    .option("--drain <seconds>", "how long running requests may go on after SIGTERM (default: 30)", number)
    .option("--wedge <seconds>", "kill an engine that makes no step for so long (default: 60)", number)
    .option(
      "--sleep-after <seconds>",
      "without work for so long give the model's memory back (default: never)",
      number,
    );
}

function gigabytes(text: string): number {
  if (text === "off") return 0;
  const value = Number(text);
  if (text.trim() !== "" && Number.isFinite(value) && value >= 0) return Math.floor(value * 1e9);
  throw new InvalidArgumentError('Give gigabytes, or "off".');
}
