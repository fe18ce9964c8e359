/** One request and the means to answer it: what a route sees of node:http. */
import type { IncomingHttpHeaders, ServerResponse } from "node:http";
import type { Json } from "../../json/parse-json.ts";
import { AnswerFollower } from "../answers/answer-follower.ts";
import type { KeptAnswer } from "../answers/kept-answer.ts";
import { HttpError } from "../http-error.ts";
import type { Identity } from "../keys.ts";
import type { Call, EventStream } from "../route.ts";
import type { KeepAlive } from "./keep-alive.ts";
import { ServerSentEvents, type StreamLimits } from "./server-sent-events.ts";

export interface CallUsage {
  readonly prompt: number;
  readonly cached: number;
  readonly generated: number;
}

export interface CallParts {
  readonly requestId: string;
  readonly url: URL;
  readonly parameters: Readonly<Record<string, string>>;
  readonly headers: IncomingHttpHeaders;
  readonly body: Json | undefined;
  readonly identity: Identity;
  readonly response: ServerResponse;
  readonly keepAlive: KeepAlive;
  readonly streamLimits: StreamLimits;
  readonly admit: Call["admit"];
  /** Where the answer is kept: it goes on then though its client is gone. */
  readonly kept?: KeptAnswer | undefined;
}

export class HttpCall implements Call {
  readonly requestId: string;
  readonly url: URL;
  readonly parameters: Readonly<Record<string, string>>;
  readonly headers: IncomingHttpHeaders;
  readonly body: Json | undefined;
  readonly key: string;
  readonly namespace: string;
  readonly priority: number;
  readonly admit: Call["admit"];
  /** What the route accounted for; undefined until then. */
  usage: CallUsage | undefined;
  /** Whether a stream was opened: a fault is then answered inside it. */
  stream: ServerSentEvents | undefined;
  wasCut = false;
  readonly #abort = new AbortController();
  readonly #parts: CallParts;

  constructor(parts: CallParts) {
    this.#parts = parts;
    this.requestId = parts.requestId;
    this.url = parts.url;
    this.parameters = parts.parameters;
    this.headers = parts.headers;
    this.body = parts.body;
    this.key = parts.identity.name;
    this.namespace = parts.identity.namespace;
    this.priority = parts.identity.priority;
    this.admit = parts.admit;
    const leave = parts.kept?.join();
    parts.response.once("close", () => {
      leave?.();
      const isWaitedFor = parts.kept !== undefined && !parts.kept.isLost;
      if (parts.response.writableFinished || isWaitedFor) return;
      this.abort(new HttpError(499, "The client went away", { code: "closed" }));
    });
  }

  get signal(): AbortSignal {
    return this.#abort.signal;
  }

  abort(reason: Error): void {
    this.#abort.abort(reason);
  }

  account(usage: CallUsage): void {
    this.usage ??= usage;
  }

  json(status: number, value: unknown, headers: Readonly<Record<string, string>> = {}): void {
    this.#answer(status, JSON.stringify(value), { "content-type": "application/json; charset=utf-8", ...headers });
  }

  text(status: number, value: string, contentType: string, headers: Readonly<Record<string, string>> = {}): void {
    this.#answer(status, value, { "content-type": contentType, ...headers });
  }

  openStream(): EventStream {
    const { response, keepAlive, streamLimits, kept } = this.#parts;
    const onCut = () => {
      this.wasCut = true;
      // A client that was cut may come back to an answer that is kept.
      if (kept === undefined) this.abort(new Error("The client reads too slowly"));
    };
    this.stream ??= new ServerSentEvents(response, { keepAlive, limits: streamLimits, onCut, kept });
    return this.stream;
  }

  /** Answers with an answer that is kept, behind the event `after`. */
  follow(answer: KeptAnswer, after: number): Promise<void> {
    return AnswerFollower.follow(answer, this.#parts.response, after, this.#parts.keepAlive);
  }

  #answer(status: number, body: string, headers: Readonly<Record<string, string>>): void {
    const { response, kept } = this.#parts;
    kept?.whole({ status, headers, isStream: false }, body, status >= 400);
    // The client is gone, or was answered: there is nobody to tell.
    if (response.headersSent || response.destroyed) return;
    response.writeHead(status, { ...headers, "content-length": Buffer.byteLength(body) }).end(body);
  }
}
