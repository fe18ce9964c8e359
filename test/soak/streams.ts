/**
 * Load on the gateway with the scripted engine, every part in its own process:
 *   node test/soak/streams.ts streams --streams 2000 --rate 20 --seconds 20
 *   node test/soak/streams.ts overload --rate 20      ten times the requests that can be served
 *   node test/soak/streams.ts aborts                  2,000 streams closed by their clients within a second
 * Prints one JSON document.
 */
import { execFile } from "node:child_process";
import { readFileSync } from "node:fs";
import { fileURLToPath } from "node:url";
import { parseArgs, promisify } from "node:util";
import { postTokens } from "../serving/start-gateway.ts";
import { type RunningServer, startServer, until } from "../serving/start-server.ts";
import type { ClientReport, ClientTask } from "./client.ts";

export interface Load {
  readonly streams: number;
  /** Tokens a second of each stream. */
  readonly rate: number;
  readonly seconds: number;
}

export interface StreamsReport extends ClientReport {
  readonly gatewayRssMb: number;
}

/** Many streams at once: nothing lost, nothing doubled, nothing late. */
export async function streams({ streams: count, rate, seconds }: Load): Promise<StreamsReport> {
  const limits = { maxQueue: count, maxConnections: 2 * count + 100 };
  await using server = await startServer({ engineOptions: { stepMs: 1000 / rate }, ...limits });
  const rss = watchRss(server);
  const report = await client({ port: portOf(server), streams: count, tokens: rate * seconds, opensPerSecond: 1000 });
  return { ...report, gatewayRssMb: rss() };
}

/** Requests at ten times the rate at which they can be served: those taken are served in full, the rest is refused at once. */
export async function overload({ streams: count, rate, seconds }: Load): Promise<StreamsReport> {
  const maxRunning = Math.min(50, Math.ceil(count / 20));
  await using server = await startServer({ engineOptions: { stepMs: 1000 / rate, maxRunning }, maxQueue: maxRunning });
  const rss = watchRss(server);
  const report = await client({
    port: portOf(server),
    streams: count,
    tokens: rate * seconds,
    opensPerSecond: (10 * maxRunning) / seconds,
  });
  return { ...report, gatewayRssMb: rss() };
}

export interface AbortReport {
  readonly aborted: number;
  /** From the last abort to an engine with nothing to do. */
  readonly freedMs: number;
  /** Of the next request, to its only token. */
  readonly nextMs: number;
  readonly idleMs: number;
}

/** Clients that all go away: the engine is free at once and the next request is served as on an idle server. */
export async function aborts({ streams: count, rate }: Load): Promise<AbortReport> {
  const limits = { maxQueue: count, maxConnections: 2 * count + 100 };
  await using server = await startServer({ engineOptions: { stepMs: 1000 / rate }, ...limits });
  const idleMs = await timeOfOne(server);
  await client({ port: portOf(server), streams: count, tokens: 100_000, opensPerSecond: count, abortAfter: 5 });
  const ended = performance.now();
  await until(async () => (await statusOf(server)).running === 0);
  const freedMs = performance.now() - ended;
  return { aborted: count, freedMs, nextMs: await timeOfOne(server), idleMs };
}

async function timeOfOne({ url }: RunningServer): Promise<number> {
  const started = performance.now();
  await (await postTokens(url, { max: 1 })).json();
  return performance.now() - started;
}

async function statusOf({ url }: RunningServer): Promise<{ running: number }> {
  return (await (await fetch(`${url}/status.json`)).json()) as { running: number };
}

async function client(task: ClientTask): Promise<ClientReport> {
  const file = fileURLToPath(new URL("./client.ts", import.meta.url));
  const { stdout } = await promisify(execFile)(process.execPath, [file, JSON.stringify(task)], { maxBuffer: 2 ** 20 });
  return JSON.parse(stdout) as ClientReport;
}

/** The most memory that the gateway held; Linux tells it. */
function watchRss({ supervisor }: RunningServer): () => number {
  return () => {
    const status = readFileSync(`/proc/${supervisor.gatewayPid}/status`, "utf8");
    return Math.round(Number(/VmHWM:\s+(\d+)/.exec(status)?.[1] ?? 0) / 1024);
  };
}

function portOf({ url }: RunningServer): number {
  return Number(new URL(url).port);
}

if (import.meta.main) {
  const { values, positionals } = parseArgs({
    allowPositionals: true,
    options: {
      streams: { type: "string", default: "2000" },
      rate: { type: "string", default: "20" },
      seconds: { type: "string", default: "20" },
    },
  });
  const load = { streams: Number(values.streams), rate: Number(values.rate), seconds: Number(values.seconds) };
  const kinds: Readonly<Record<string, (load: Load) => Promise<object>>> = { streams, overload, aborts };
  const [kind = "streams"] = positionals;
  const run = kinds[kind];
  if (run === undefined) throw new Error(`There is no load called ${kind}`);
  process.stdout.write(`${JSON.stringify({ kind, load, ...(await run(load)) })}\n`);
}
