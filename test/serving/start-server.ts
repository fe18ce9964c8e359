/** Supervisor, gateway and scripted engine as the three processes that they are in service. */

import { Supervisor } from "../../src/server/processes/supervisor.ts";
import { resolveServeConfig, type ServeConfigInput } from "../../src/server/serve-config.ts";
import { scriptedToken } from "./scripted-engine.ts";

const beside = (name: string) => new URL(name, import.meta.url).href;

export function scriptedConfig(input: ServeConfigInput = {}) {
  return resolveServeConfig({
    port: 0,
    log: "off",
    engineModule: beside("./scripted-engine.ts"),
    routesModule: beside("./token-route.ts"),
    ...input,
  });
}

export interface RunningServer extends AsyncDisposable {
  readonly supervisor: Supervisor;
  readonly url: string;
  readonly notes: string[];
}

export async function startServer(input: ServeConfigInput = {}): Promise<RunningServer> {
  const notes: string[] = [];
  const supervisor = await Supervisor.start(scriptedConfig(input), {
    version: "0.0.0",
    onNote: (text) => void notes.push(text),
  });
  return {
    supervisor,
    url: await supervisor.url(),
    notes,
    [Symbol.asyncDispose]: () => supervisor.stop(0),
  };
}

/** One event of a stream: its name and its data. */
export interface StreamEvent {
  readonly event: string;
  readonly data: string;
}

/** The events of an answer, comments left out. */
export async function* streamEvents(answer: Response): AsyncGenerator<StreamEvent> {
  let rest = "";
  for await (const text of answer.body!.pipeThrough(new TextDecoderStream())) {
    const frames = (rest + text).split("\n\n");
    rest = frames.pop()!;
    for (const frame of frames) {
      const field = (name: string) => new RegExp(`^${name}: (.*)$`, "m").exec(frame)?.[1];
      const data = field("data");
      if (data !== undefined) yield { event: field("event") ?? "message", data };
    }
  }
}

export interface Answer {
  readonly ids: number[];
  readonly end: StreamEvent | undefined;
}

/** Reads a stream of tokens to its end; `onTokens` hears how many there are. */
export async function readTokens(
  answer: Response,
  onTokens: (count: number) => void = () => undefined,
): Promise<Answer> {
  const ids: number[] = [];
  let end: StreamEvent | undefined;
  for await (const event of streamEvents(answer)) {
    if (event.event === "message") ids.push(...(JSON.parse(event.data) as number[]));
    else end = event;
    onTokens(ids.length);
  }
  return { ids, end };
}

/** What the scripted engine gives for a seed. */
export function expectedTokens(seed: number, count: number): number[] {
  return Array.from({ length: count }, (_, i) => scriptedToken(seed, i));
}

/** Waits until something is so, without a clock of its own: the test's time limit ends it. */
export async function until(isSo: () => boolean | Promise<boolean>): Promise<void> {
  while (!(await isSo())) await new Promise((resolve) => setTimeout(resolve, 10));
}
