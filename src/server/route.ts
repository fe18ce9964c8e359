/**
 * A route of the HTTP API, and what it is given. The gateway has already checked the key, the limits and the size of the body;
 * a route reads its JSON, asks the engine and answers. Errors are thrown; the gateway answers them in the route's own dialect.
 */
import type { IncomingHttpHeaders } from "node:http";
import type { DialectName } from "../chat/dialect.ts";
import type { EngineInfo, EnginePort } from "../engine/batching/engine-port.ts";
import type { Json } from "../json/parse-json.ts";
import type { Tokenizer } from "../tokenizer/tokenizer.ts";

export interface Route {
  readonly method: "GET" | "POST" | "DELETE" | "HEAD";
  /** "/v1/models/{model}": a part in braces matches one segment. */
  readonly path: string;
  /** What a key must be allowed; "none" needs no key. */
  readonly scope: "none" | "infer" | "admin:read" | "admin:write";
  /** In whose shape errors are answered. */
  readonly errors: ErrorDialect;
  handle(call: Call, services: Services): Promise<void>;
}

export type ErrorDialect = "openai" | "anthropic" | "llama" | "plain";

/** One HTTP request and the means to answer it. */
export interface Call {
  readonly requestId: string;
  readonly url: URL;
  readonly parameters: Readonly<Record<string, string>>;
  readonly headers: IncomingHttpHeaders;
  /** The body, parsed with nothing lost; undefined where there is none. */
  readonly body: Json | undefined;
  /** The key's public name, for fairness, limits and logs; "anonymous" when no keys are configured. */
  readonly key: string;
  /** Of the prefix cache: derived from the key by the server. */
  readonly namespace: string;
  readonly priority: number;
  /** Aborted when the client goes away, a time limit passes or the server must stop. */
  readonly signal: AbortSignal;
  /**
   * Takes room in the queue for a request of so many tokens. Throws an HttpError (429, with Retry-After) when there is none.
   * Freed when the answer is finished.
   */
  admit(tokens: { readonly prompt: number; readonly generated: number }): void;
  /** What the access log and the key's budget count; called once, at the end. */
  account(usage: { readonly prompt: number; readonly cached: number; readonly generated: number }): void;
  /** Answers with JSON. */
  json(status: number, value: unknown, headers?: Readonly<Record<string, string>>): void;
  text(status: number, value: string, contentType: string, headers?: Readonly<Record<string, string>>): void;
  /** Opens a stream of server-sent events; status 200 is sent with the first write. */
  openStream(): EventStream;
}

/**
 * Server-sent events to one client. Writes never wait: what a slow client has not read is kept up to a limit, then the client is cut
 * and `call.signal` is aborted. Comments (": ping") keep silent streams alive by themselves.
 */
export interface EventStream {
  /** One event: `data` is text already (JSON on one line). */
  send(data: string, event?: string): void;
  /** What is sent after a second of silence; default: a comment. Anthropic wants an event of its own. */
  keepAliveWith(data: string, event: string): void;
  /** True while the client has more than it takes: several tokens may go into one event. */
  readonly isCongested: boolean;
  /** `hasFailed`: the last event told an error, so what was sent is not worth keeping. */
  end(hasFailed?: boolean): void;
}

export interface Services {
  readonly engine: EnginePort;
  /** Throws an HttpError (503) while the model loads. */
  requireInfo(): EngineInfo;
  readonly tokenizer: Tokenizer;
  readonly dialect: DialectName;
  readonly version: string;
  /** Seconds since 1970. */
  now(): number;
}
