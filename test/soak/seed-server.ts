/**
 * The server with a model under load, the embedded one or a V4.1 model of random weights, its three processes as in service. Answers are functions of prompt and seed, so each
 * can be compared with what an undisturbed server gave, whatever is killed, aborted or batched meanwhile.
 */
import assert from "node:assert/strict";
import { readdirSync, readFileSync } from "node:fs";
import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { Supervisor } from "../../src/server/processes/supervisor.ts";
import { resolveServeConfig } from "../../src/server/serve-config.ts";
import { until } from "../serving/start-server.ts";
import { randomNumbers, type SmallModelName } from "../small-model.ts";
import { v41Folder } from "../v41-folder.ts";

interface Question {
  readonly messages: readonly object[];
  readonly seed: number;
  readonly max_tokens: number;
  readonly temperature: number;
  readonly thinking: object;
}

interface Load {
  readonly seed: number;
  readonly model: SmallModelName;
}

export interface CrashCounts {
  readonly kills: number;
  readonly answers: number;
  /** From a kill to a server that is ready again. */
  readonly readyMs: { readonly median: number; readonly most: number };
}

/** Kills the engine again and again while questions are answered: every answer is what it would have been. */
export async function crashes({ rounds, seed, model }: Load & { rounds: number }): Promise<CrashCounts> {
  return withServer(model, async (server, url) => {
    const questions = Array.from({ length: 12 }, (_, i) => question(seed + i, 400));
    const expected = await Promise.all(questions.map((one) => ask(url, one)));
    const times: number[] = [];
    let answers = 0;
    let isOver = false;
    const clients = questions.map(async (one, i) => {
      while (!isOver) {
        assert.equal(await ask(url, one), expected[i], `seed ${seed + i}: another answer than without a crash`);
        answers++;
      }
    });
    const random = randomNumbers(seed);
    for (let round = 0; round < rounds; round++) {
      // Each engine gets somewhere before it dies: a request at which engines die at once is refused.
      const tokens = 200 + 400 * random();
      await until(async () => (await status(url)).counters.generatedTokens > tokens);
      const { enginePid } = server;
      process.kill(enginePid!, "SIGKILL");
      const killed = performance.now();
      await until(async () => server.enginePid !== enginePid && (await fetch(`${url}/readyz`)).status === 200);
      times.push(performance.now() - killed);
    }
    isOver = true;
    await Promise.all(clients);
    times.sort((a, b) => a - b);
    return { kills: rounds, answers, readyMs: { median: times[times.length >> 1] ?? 0, most: times.at(-1) ?? 0 } };
  });
}

export interface ChatCounts {
  readonly answers: number;
  readonly aborted: number;
  /** Resident memory after a third of the time and at the end. */
  readonly engineMb: readonly [number, number];
  readonly gatewayMb: readonly [number, number];
  readonly openFiles: readonly [number, number];
}

/** Chats for a while, a fifth of them given up by their clients: no error, no leak. */
export async function chats({ seconds, seed, model }: Load & { seconds: number }): Promise<ChatCounts> {
  return withServer(model, async (server, url) => {
    const random = randomNumbers(seed);
    const ends = performance.now() + 1000 * seconds;
    const counts = { answers: 0, aborted: 0 };
    const readings: { engine: number; gateway: number; files: number }[] = [];
    const client = async () => {
      while (performance.now() < ends) {
        const one = question(Math.floor(random() * 2 ** 31), 1 + Math.floor(random() * 200));
        if (random() < 0.2) {
          await abort(url, one, 200 * random());
          counts.aborted++;
        } else {
          await ask(url, one);
          counts.answers++;
        }
      }
    };
    const reader = setInterval(() => readings.push(reading(server)), 500);
    await Promise.all(Array.from({ length: 24 }, client));
    await until(async () => (await status(url)).running === 0);
    clearInterval(reader);
    const [early, late] = [readings[Math.floor(readings.length / 3)]!, readings.at(-1)!];
    return {
      ...counts,
      engineMb: [early.engine, late.engine],
      gatewayMb: [early.gateway, late.gateway],
      openFiles: [early.files, late.files],
    };
  });
}

async function withServer<T>(model: SmallModelName, work: (server: Supervisor, url: string) => Promise<T>): Promise<T> {
  await using folder = model === "v4.1" ? await v41Folder() : undefined;
  const cacheDirectory = await mkdtemp(join(tmpdir(), "freehold-soak-"));
  const reference = folder === undefined ? {} : { model: folder.path };
  const config = resolveServeConfig({ port: 0, log: "off", ...reference, engineOptions: { cacheDirectory } });
  const server = await Supervisor.start(config, { version: "0.0.0" });
  try {
    return await work(server, await server.url());
  } finally {
    await server.stop(0);
    await rm(cacheDirectory, { recursive: true, force: true, maxRetries: 5 });
  }
}

const topics = ["a cat", "a ball", "the moon", "two friends", "a red house"];

function question(seed: number, maxTokens: number): Question {
  const topic = topics[seed % topics.length];
  return {
    messages: [
      { role: "system", content: "You tell stories." },
      { role: "user", content: `Tell me a story about ${topic}.` },
    ],
    seed,
    max_tokens: maxTokens,
    temperature: 1,
    thinking: { type: "disabled" },
  };
}

function post(url: string, body: object, signal?: AbortSignal): Promise<Response> {
  const headers = { "content-type": "application/json" };
  const request = { method: "POST", headers, body: JSON.stringify(body) };
  return fetch(`${url}/v1/chat/completions`, signal === undefined ? request : { ...request, signal });
}

async function ask(url: string, one: Question): Promise<string> {
  const response = await post(url, one);
  const text = await response.text();
  assert.equal(response.status, 200, text);
  return (JSON.parse(text) as { choices: [{ message: { content: string } }] }).choices[0].message.content;
}

async function abort(url: string, one: Question, afterMs: number): Promise<void> {
  const signal = AbortSignal.timeout(Math.round(afterMs));
  try {
    const response = await post(url, { ...one, stream: true }, signal);
    for await (const _ of response.body!) signal.throwIfAborted();
  } catch (error) {
    if (!signal.aborted) throw error;
  }
}

interface Status {
  readonly running: number;
  readonly counters: { readonly generatedTokens: number };
}

async function status(url: string): Promise<Status> {
  return (await (await fetch(`${url}/status.json`)).json()) as Status;
}

/** Memory in MB and open files of both processes; Linux tells them. */
function reading({ enginePid, gatewayPid }: Supervisor): { engine: number; gateway: number; files: number } {
  const resident = (pid: number | undefined) => {
    const text = readFileSync(`/proc/${pid}/status`, "utf8");
    return Math.round(Number(/VmRSS:\s+(\d+)/.exec(text)?.[1] ?? 0) / 1024);
  };
  const files = [enginePid, gatewayPid].reduce((sum, pid) => sum! + readdirSync(`/proc/${pid}/fd`).length, 0);
  return { engine: resident(enginePid), gateway: resident(gatewayPid), files: files! };
}
