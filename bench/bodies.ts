/**
 * Large request bodies: how long one holds the gateway's event loop, and how much memory it costs, from its first byte to the answer;
 * and what twenty of them at once do to the streams of others. Supervisor, gateway and engine are the processes of every day, each
 * case has its own; the engine is scripted, the clients are in this process. Linux only. `node bench/bodies.ts [part of a name]`
 */
import { execFile } from "node:child_process";
import { randomBytes } from "node:crypto";
import { readFileSync, writeFileSync } from "node:fs";
import { connect } from "node:net";
import { fileURLToPath } from "node:url";
import { promisify } from "node:util";
import { type RunningServer, startServer } from "../test/serving/start-server.ts";
import type { ClientReport, ClientTask } from "../test/soak/client.ts";
import { makeVisionFolder } from "../test/vision-folder.ts";
import { report } from "./measure.ts";

const length = 30_000_000;
const beside = (name: string) => new URL(name, import.meta.url).href;

const words = "the quick brown fox jumps over the lazy dog ";
const chat = (rest: string) => `{"max_tokens":1,"messages":[{"role":"user","content":"Hi"}]${rest}}`;
const message = (content: string) => `{"max_tokens":1,"messages":[{"role":"user","content":${content}}]}`;
const image = () => `data:image/png;base64,${randomBytes((length * 3) / 4).toString("base64")}`;
const filled = (unit: string, bytes = length) => unit.repeat(Math.floor(bytes / Buffer.byteLength(unit)));
const list = (count: number, item: string | ((i: number) => string)) =>
  `[${Array.from({ length: count }, (_, i) => (typeof item === "string" ? item : item(i))).join(",")}]`;
const spaces = (text: string) => text.replaceAll(",", `,${" ".repeat(Math.floor(length / text.split(",").length))}`);
const deep = (open: string, close: string) => `${open.repeat(200)}1${close.repeat(200)}`;

interface Case {
  readonly body: () => string | Buffer;
  readonly path?: string;
}

/** What is named "ignored" stands in a parameter that no API uses: reading it is all there is to do. */
const cases: Readonly<Record<string, Case>> = {
  "an image": { body: () => message(`[{"type":"image_url","image_url":{"url":"${image()}"}}]`) },
  "an image (Messages)": {
    path: "/v1/messages",
    body: () =>
      message(
        `[{"type":"image","source":{"type":"base64","media_type":"image/png","data":"${image().slice(22)}"}},{"type":"text","text":"?"}]`,
      ),
  },
  "an image (Responses)": {
    path: "/v1/responses",
    body: () =>
      `{"max_output_tokens":1,"input":[{"role":"user","content":[{"type":"input_image","image_url":"${image()}"}]}]}`,
  },
  "four images": {
    body: () =>
      message(list(4, () => `{"type":"image_url","image_url":{"url":"${image().slice(0, length / 4 + 22)}"}}`)),
  },
  "an image with escapes": {
    body: () =>
      message(`[{"type":"image_url","image_url":{"url":"${image().replaceAll("/", "\\/").slice(0, length)}"}}]`),
  },
  "one ignored text": { body: () => chat(`,"user":"${filled("a")}"`) },
  "ignored text of two bytes": { body: () => chat(`,"user":"${filled("é")}"`) },
  "ignored text, its last letter wide": { body: () => chat(`,"user":"${filled("a")}中"`) },
  "ignored escapes": { body: () => chat(`,"user":"${filled("\\n")}"`) },
  "ignored \\u escapes": { body: () => chat(`,"user":"${filled("\\u0041")}"`) },
  "ignored halves of pairs": { body: () => chat(`,"user":"${filled("\\ud83d")}"`) },
  "262,000 ignored numbers": { body: () => chat(`,"metadata":${list(262_000, "1")}`) },
  "the same with spaces": { body: () => chat(`,"metadata":${spaces(list(262_000, "1"))}`) },
  "262,000 ignored texts": { body: () => chat(`,"metadata":${list(262_000, `"${filled(words, 100)}"`)}`) },
  "65,000 ignored keys": { body: () => chat(`,"metadata":{${list(65_000, (i) => `"k${i}":1`).slice(1, -1)}}`) },
  "65,000 ignored equal keys": { body: () => chat(`,"metadata":{${list(65_000, '"k":1').slice(1, -1)}}`) },
  "65,000 ignored keys of 450 letters": {
    body: () => chat(`,"metadata":{${list(65_000, (i) => `"${"k".repeat(445)}${i}":1`).slice(1, -1)}}`),
  },
  "ignored lists 200 deep": { body: () => chat(`,"metadata":${list(320, deep("[", "]"))}`) },
  "ignored objects 200 deep": { body: () => chat(`,"metadata":${list(160, deep('{"a":', "}"))}`) },
  "21,000 messages": { body: () => `{"max_tokens":1,"messages":${list(21_000, '{"role":"user","content":"Hi"}')}}` },
  "21,000 messages (Messages)": {
    path: "/v1/messages",
    body: () => `{"max_tokens":1,"messages":${list(21_000, '{"role":"user","content":"Hi"}')}}`,
  },
  "6,000 calls and results": {
    body: () =>
      `{"max_tokens":1,"messages":[{"role":"assistant","content":"","tool_calls":${list(6000, (i) => `{"id":"c${i}","function":{"name":"f"}}`)}},${list(6000, (i) => `{"role":"tool","tool_call_id":"c${i}","content":"1"}`).slice(1, -1)}]}`,
  },
  "21,000 parts": { body: () => message(list(21_000, '{"type":"text","text":"Hi"}')) },
  "21,000 parts (Messages)": { path: "/v1/messages", body: () => message(list(21_000, '{"type":"text","text":"Hi"}')) },
  "21,000 items (Responses)": {
    path: "/v1/responses",
    body: () => `{"max_output_tokens":1,"input":${list(21_000, '{"role":"user","content":"Hi"}')}}`,
  },
  "15 million numbers": { body: () => chat(`,"metadata":[${filled("1,")}1]`) },
  "keys to the end": { body: () => chat(`,"metadata":{${filled('"":0,')}"":0}`) },
  "brackets to the end": { body: () => filled("[") },
  "a number of 30 MB": { body: () => chat(`,"metadata":${filled("1")}`) },
  "a role of 30 MB": { body: () => `{"messages":[{"role":"${filled("r")}","content":"Hi"}]}` },
  "a refused grammar of 30 MB": { body: () => chat(`,"grammar":"${filled("g")}"`) },
  "a text without an end": { body: () => chat(`,"user":"${filled("a")}`).slice(0, -1) },
  "wrong UTF-8 at the end": { body: () => Buffer.concat([Buffer.from(`"${filled("a")}`), Buffer.from([0xff])]) },
  "a text of words, 4 MB": { body: () => message(`"${filled(words, 4e6)}"`) },
  "a text of words, 4 MB (completions)": {
    path: "/v1/completions",
    body: () => `{"max_tokens":1,"prompt":"${filled(words, 4e6)}"}`,
  },
  "a text of words, 4 MB (llama-server)": {
    path: "/completion",
    body: () => `{"n_predict":1,"prompt":"${filled(words, 4e6)}"}`,
  },
  "a text of words, 4 MB (infill)": {
    path: "/infill",
    body: () => `{"n_predict":1,"input_prefix":"${filled(words, 4e6)}"}`,
  },
  "a text of words, 4 MB (tokenize)": { path: "/tokenize", body: () => `{"content":"${filled(words, 4e6)}"}` },
  "260,000 tokens (detokenize)": { path: "/detokenize", body: () => `{"tokens":${list(260_000, "20")}}` },
};

/** `chosen`: part of the names of the cases. */
export async function benchBodies(chosen = ""): Promise<void> {
  using folder = makeVisionFolder(); // for its tokenizer, which knows images
  const start = (stepMs: number) => startWarm(folder.path, stepMs);
  for (const count of [0, 20]) if ("at once".includes(chosen)) await benchCrowd(count, start);
  for (const [name, { body, path = "/v1/chat/completions" }] of Object.entries(cases)) {
    if (!name.includes(chosen)) continue;
    await using server = await start(2);
    const bytes = Buffer.from(body());
    const idle = memory(server, "VmRSS");
    writeFileSync(`/proc/${server.supervisor.gatewayPid}/clear_refs`, "5");
    await longestStop(server);
    const started = performance.now();
    const answer = await send(server, path, bytes);
    const seconds = (performance.now() - started) / 1000;
    const stop = await longestStop(server);
    const most = memory(server, "VmHWM") - idle;
    const status = answer.slice(9, 12);
    const megabytes = `${Math.round(most)} MiB more, ${(most / (bytes.length / 2 ** 20)).toFixed(1)} times the body`;
    report(
      name,
      `${status}, loop held ${stop.toFixed(0).padStart(4)} ms at most, ${megabytes}, ${seconds.toFixed(2)} s`,
    );
  }
}

/** What other streams notice of so many images at once; clients of the streams are a process of their own. */
async function benchCrowd(bodies: number, start: Start): Promise<void> {
  await using server = await start(20);
  const port = Number(new URL(server.url).port);
  const task: ClientTask = { port, streams: 50, tokens: 300, opensPerSecond: 1000 };
  const file = fileURLToPath(new URL("../test/soak/client.ts", import.meta.url));
  const streams = promisify(execFile)(process.execPath, [file, JSON.stringify(task)]);
  const bytes = Buffer.from(cases["an image"]!.body());
  await new Promise((resolve) => setTimeout(resolve, 2000));
  const idle = memory(server, "VmRSS");
  writeFileSync(`/proc/${server.supervisor.gatewayPid}/clear_refs`, "5");
  await longestStop(server);
  const started = performance.now();
  const answers = await Promise.all(Array.from({ length: bodies }, () => send(server, "/v1/chat/completions", bytes)));
  const seconds = (performance.now() - started) / 1000;
  const stop = await longestStop(server);
  const most = memory(server, "VmHWM") - idle;
  const { interTokenMs } = JSON.parse((await streams).stdout) as ClientReport;
  const statuses = Object.groupBy(answers, (answer) => answer.slice(9, 12) || "cut");
  const told = Object.entries(statuses).map(([status, all]) => `${all!.length} x ${status}`);
  const gaps = `50 streams: tokens every 20 ms, 99 % within ${interTokenMs.p99} ms, at most ${interTokenMs.most} ms`;
  const held = `loop held ${stop.toFixed(0)} ms at most, ${Math.round(most)} MiB more`;
  report(`${bodies} images at once`, `${told.join(", ")}; ${held}, ${seconds.toFixed(2)} s; ${gaps}`);
}

type Start = (stepMs: number) => Promise<RunningServer>;

async function startWarm(model: string, stepMs: number): Promise<RunningServer> {
  const server = await startServer({
    model,
    engineModule: beside("./bodies-engine.ts"),
    routesModule: beside("./bodies-routes.ts"),
    engineOptions: { stepMs },
  });
  const small = Buffer.from(message(`"${filled(words, 50_000)}"`));
  for (let i = 0; i < 20; i++) await send(server, "/v1/chat/completions", small);
  return server;
}

function memory({ supervisor }: RunningServer, field: "VmHWM" | "VmRSS"): number {
  const status = readFileSync(`/proc/${supervisor.gatewayPid}/status`, "utf8");
  return Number(new RegExp(`${field}:\\s+(\\d+)`).exec(status)?.[1]) / 1024;
}

async function longestStop(server: RunningServer): Promise<number> {
  const answer = await send(server, "/longest-stop", Buffer.from("{}"));
  return (JSON.parse(answer.slice(answer.indexOf("\r\n\r\n"))) as { milliseconds: number }).milliseconds;
}

/** The whole answer. */
function send({ url }: RunningServer, path: string, body: Buffer): Promise<string> {
  return new Promise((resolve) => {
    const socket = connect(Number(new URL(url).port), "127.0.0.1");
    let answer = "";
    socket.on("data", (chunk) => {
      answer += chunk.toString("latin1");
    });
    socket.on("error", () => undefined);
    socket.on("close", () => resolve(answer));
    socket.write(
      `POST ${path} HTTP/1.1\r\nhost: 127.0.0.1\r\nconnection: close\r\ncontent-type: application/json\r\ncontent-length: ${body.length}\r\n\r\n`,
    );
    socket.write(body);
  });
}

if (import.meta.main) await benchBodies(process.argv[2]);
