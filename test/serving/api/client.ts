/** Bare requests, for what no library shows. */
import type { RouteServer } from "./route-server.ts";

export interface Answered {
  readonly status: number;
  readonly headers: Headers;
  readonly body: unknown;
}

export async function post(server: RouteServer, path: string, body: unknown): Promise<Answered> {
  return readAnswer(await send(server, path, body));
}

export async function get(server: RouteServer, path: string, headers: Record<string, string> = {}): Promise<Answered> {
  return readAnswer(await fetch(server.url + path, { headers }));
}

export interface SentEvent {
  readonly event: string | undefined;
  readonly data: string;
}

export async function postStream(
  server: RouteServer,
  path: string,
  body: unknown,
): Promise<{ status: number; events: SentEvent[] }> {
  const response = await send(server, path, body);
  const text = await response.text();
  const events = text
    .split("\n\n")
    .filter((block) => block.includes("data:"))
    .map((block) => ({ event: /^event: (.*)$/m.exec(block)?.[1], data: /^data: (.*)$/m.exec(block)![1]! }));
  return { status: response.status, events };
}

function send(server: RouteServer, path: string, body: unknown): Promise<Response> {
  return fetch(server.url + path, {
    method: "POST",
    headers: { "content-type": "application/json" },
    body: typeof body === "string" ? body : JSON.stringify(body),
  });
}

async function readAnswer(response: Response): Promise<Answered> {
  const text = await response.text();
  return { status: response.status, headers: response.headers, body: text === "" ? undefined : JSON.parse(text) };
}
