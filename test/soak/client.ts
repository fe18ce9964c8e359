/**
 * The clients of the soak tests, in a process of their own: many streams over bare sockets, each checked token by token. Told what to
 * do by its argument (JSON), tells what it saw on stdout.
 */
import { connect, type Socket } from "node:net";
import { scriptedToken } from "../serving/scripted-engine.ts";

export interface ClientTask {
  readonly port: number;
  readonly streams: number;
  /** Tokens of each stream. */
  readonly tokens: number;
  /** Streams opened a second. */
  readonly opensPerSecond: number;
  /** Close each stream after so many tokens. */
  readonly abortAfter?: number;
}

export interface ClientReport {
  readonly finished: number;
  readonly refused: number;
  readonly refusedMostMs: number;
  readonly failed: number;
  readonly lost: number;
  readonly wrong: number;
  readonly events: number;
  readonly seconds: number;
  readonly timeToFirstTokenMs: { readonly p50: number; readonly p99: number };
  readonly interTokenMs: { readonly p50: number; readonly p99: number; readonly most: number };
}

export async function runClient(task: ClientTask): Promise<ClientReport> {
  const firstTokens: number[] = [];
  const gaps: number[] = [];
  const totals = { finished: 0, refused: 0, refusedMostMs: 0, failed: 0, lost: 0, wrong: 0, events: 0 };
  const started = performance.now();
  const all: Promise<void>[] = [];
  for (let i = 0; i < task.streams; i++) {
    const due = started + (1000 * i) / task.opensPerSecond;
    if (due > performance.now()) await new Promise((resolve) => setTimeout(resolve, due - performance.now()));
    all.push(new StreamCheck(task, i, { firstTokens, gaps, totals }).done);
  }
  await Promise.all(all);
  const [first, gap] = [firstTokens.sort((a, b) => a - b), gaps.sort((a, b) => a - b)];
  return {
    ...totals,
    seconds: (performance.now() - started) / 1000,
    timeToFirstTokenMs: { p50: quantile(first, 0.5), p99: quantile(first, 0.99) },
    interTokenMs: { p50: quantile(gap, 0.5), p99: quantile(gap, 0.99), most: gap.at(-1) ?? 0 },
  };
}

interface Tally {
  readonly firstTokens: number[];
  readonly gaps: number[];
  readonly totals: {
    finished: number;
    refused: number;
    refusedMostMs: number;
    failed: number;
    lost: number;
    wrong: number;
    events: number;
  };
}

/** One stream: token i must be the i-th that the scripted engine gives for the seed. */
class StreamCheck {
  readonly done: Promise<void>;
  readonly #task: ClientTask;
  readonly #seed: number;
  readonly #tally: Tally;
  readonly #socket: Socket;
  readonly #sentMs = performance.now();
  #lastMs = 0;
  #count = 0;
  #rest = "";
  #status = 0;
  #hasEnded = false;

  constructor(task: ClientTask, seed: number, tally: Tally) {
    this.#task = task;
    this.#seed = seed;
    this.#tally = tally;
    this.#socket = connect({ port: task.port, host: "127.0.0.1", noDelay: true });
    this.#socket.setEncoding("latin1");
    const body = JSON.stringify({ seed, max: task.tokens, stream: true });
    this.#socket.write(
      `POST /v1/tokens HTTP/1.1\r\nhost: 127.0.0.1\r\nconnection: close\r\ncontent-type: application/json\r\ncontent-length: ${body.length}\r\n\r\n${body}`,
    );
    this.#socket.on("data", (text: unknown) => this.#read(text as string));
    this.#socket.on("error", () => undefined);
    this.done = new Promise((resolve) => {
      this.#socket.on("close", () => {
        this.#close();
        resolve();
      });
    });
  }

  #read(text: string): void {
    if (this.#status === 0) this.#readStatus(text);
    const lines = (this.#rest + text).split("\n");
    this.#rest = lines.pop()!;
    for (const line of lines) {
      if (line.startsWith("data: [")) for (const id of JSON.parse(line.slice(6)) as number[]) this.#take(id);
      else if (line.startsWith("event: end")) this.#hasEnded = true;
    }
  }

  #readStatus(text: string): void {
    this.#status = Number(text.slice(9, 12));
    if (this.#status !== 429) return;
    this.#tally.totals.refused++;
    const took = performance.now() - this.#sentMs;
    this.#tally.totals.refusedMostMs = Math.max(this.#tally.totals.refusedMostMs, took);
  }

  #take(id: number): void {
    const now = performance.now();
    if (this.#count === 0) this.#tally.firstTokens.push(now - this.#sentMs);
    else this.#tally.gaps.push(now - this.#lastMs);
    this.#lastMs = now;
    if (id !== scriptedToken(this.#seed, this.#count)) this.#tally.totals.wrong++;
    this.#count++;
    this.#tally.totals.events++;
    if (this.#count === this.#task.abortAfter) this.#socket.destroy();
  }

  #close(): void {
    const { totals } = this.#tally;
    if (this.#task.abortAfter !== undefined || this.#status === 429) return;
    if (this.#status !== 200 || !this.#hasEnded) totals.failed++;
    else totals.finished++;
    if (this.#status === 200) totals.lost += this.#task.tokens - this.#count;
  }
}

function quantile(sorted: readonly number[], share: number): number {
  return Math.round(10 * (sorted[Math.floor(share * (sorted.length - 1))] ?? 0)) / 10;
}

const task = process.argv[2];
if (import.meta.main && task !== undefined) {
  process.stdout.write(JSON.stringify(await runClient(JSON.parse(task) as ClientTask)));
}
