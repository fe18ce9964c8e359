/** The servers that agents are run against, and what each can tell of the requests it had. */
import { spawn } from "node:child_process";
import { once } from "node:events";
import type { AddressInfo } from "node:net";
import { join } from "node:path";
import { createInterface } from "node:readline";
import { openTokenizer } from "../../src/engine/load-model.ts";
import { apiRoutes } from "../../src/server/api/routes.ts";
import { createGateway } from "../../src/server/gateway.ts";
import { ScriptedModel } from "./scripted-model.ts";

export interface TestServer {
  readonly address: {
    readonly url: string;
    readonly key: string;
    readonly model: string;
    readonly contextLength: number;
  };
  /** What was asked, and what was answered with an error. */
  report(): Promise<Report>;
  close(): Promise<void>;
}

export interface ReportedTurn {
  /** Tokens of the prompt, and those that were computed anew. */
  readonly prompt: number;
  readonly computed: number;
  /** Of a turn that goes on: the share of the turn before (prompt and answer) that it repeats from its beginning. */
  readonly repeated?: number;
}

export interface Report {
  readonly requests: number;
  readonly errors: readonly string[];
  readonly turns: readonly ReportedTurn[];
}

const key = "any";
const contextLength = 131_072;

/** Answers that are fixed by the conversation, in this process. */
export async function startScripted(commands: readonly string[]): Promise<TestServer> {
  const { tokenizer, dialect } = await openTokenizer();
  const info = {
    name: "freehold",
    vocabSize: tokenizer.vocabSize,
    contextLength,
    bosTokenId: 0,
    eosTokenIds: [1],
    addsBeginOfSequence: false,
    defaults: {},
    device: "none",
    kernels: "scripted",
    threads: 0,
    parameters: 0,
    loadSeconds: 0,
  };
  const engine = new ScriptedModel(info, tokenizer, commands);
  const lines: string[] = [];
  const log = (line: string) => void lines.push(line);
  const gateway = createGateway({ engine, tokenizer, dialect, routes: apiRoutes(), version: "test", log });
  await once(gateway.server.listen(0, "127.0.0.1"), "listening");
  const { port } = gateway.server.address() as AddressInfo;
  return {
    address: { url: `http://127.0.0.1:${port}`, key, model: info.name, contextLength },
    report: async () => ({
      ...readLog(lines),
      turns: engine.turns.map(({ promptTokens, knownTokens, earlierTokens, isContinued }) => ({
        prompt: promptTokens,
        computed: promptTokens - knownTokens,
        ...(isContinued ? { repeated: knownTokens / earlierTokens } : {}),
      })),
    }),
    close: () => gateway.close(),
  };
}

/** `freehold serve` with the embedded model and its own engine process, as a user starts it. */
export async function startSeed(): Promise<TestServer> {
  const program = join(import.meta.dirname, "../../bin/freehold.js");
  const options = ["--port", "0", "--json", "--context", `${contextLength}`, "--cache-disk", "off"];
  const child = spawn(process.execPath, [program, "serve", ...options], { stdio: ["ignore", "pipe", "pipe"] });
  const lines: string[] = [];
  createInterface(child.stderr).on("line", (line) => void lines.push(line));
  const [ready] = (await once(createInterface(child.stdout), "line")) as [string];
  const { url } = JSON.parse(ready) as { url: string };
  const models = (await (await fetch(`${url}/v1/models`)).json()) as { data: { id: string }[] };
  return {
    address: { url: url.replace(/\/$/, ""), key, model: models.data[0]!.id, contextLength },
    async report() {
      const { requests, errors, tokens } = readLog(lines);
      const turns = tokens.map(({ prompt, cached }) => ({ prompt, computed: prompt - cached }));
      return { requests, errors, turns };
    },
    async close() {
      child.kill("SIGTERM");
      await once(child, "exit");
    },
  };
}

interface LogEntry {
  readonly method: string;
  readonly route: string;
  readonly status: number;
  readonly fault?: string;
  readonly tokens?: { readonly prompt: number; readonly cached: number };
}

/** Requests for an answer, and every request that was refused or failed. */
function readLog(lines: readonly string[]): Omit<Report, "turns"> & { tokens: NonNullable<LogEntry["tokens"]>[] } {
  const entries = lines.flatMap((line): LogEntry[] => (line.startsWith("{") ? [JSON.parse(line)] : []));
  const wrong = entries.filter(({ status, fault }) => status >= 400 || (fault !== undefined && fault !== "closed"));
  return {
    requests: entries.filter(({ method, status }) => method === "POST" && status === 200).length,
    errors: wrong.map(({ method, route, status, fault }) => `${method} ${route}: ${status} ${fault ?? ""}`),
    tokens: entries.flatMap(({ tokens }) => tokens ?? []),
  };
}
