/** A request on its way through the gates, its answer, and what became known meanwhile. */
import type { IncomingMessage, ServerResponse } from "node:http";
import type { KeptAnswer } from "../answers/kept-answer.ts";
import type { Identity } from "../keys.ts";
import type { ErrorDialect } from "../route.ts";
import { errorAnswer } from "./error-body.ts";
import type { HttpCall } from "./http-call.ts";
import { requestIdOf } from "./request-target.ts";
import type { RouteMatch } from "./router.ts";

export class Exchange {
  readonly request: IncomingMessage;
  readonly response: ServerResponse;
  readonly requestId: string;
  readonly startedMs: number;
  path = "/";
  match: RouteMatch | undefined;
  identity: Identity | undefined;
  call: HttpCall | undefined;
  /** Where the answer is kept for who asks for the same again. */
  kept: KeptAnswer | undefined;
  fault: string | undefined;

  constructor(request: IncomingMessage, response: ServerResponse, startedMs: number) {
    this.request = request;
    this.response = response;
    this.startedMs = startedMs;
    this.requestId = requestIdOf(request.headers["x-request-id"]);
  }

  /** Answers a fault: as a status while nothing was sent, as an event in a stream. */
  fail(error: unknown, dialect: ErrorDialect): void {
    const { response, call, requestId } = this;
    const { status, headers, body, code } = errorAnswer(error, dialect, requestId);
    this.fault = code;
    if (code === "internal") process.stderr.write(`error: ${requestId}: ${stackOf(error)}\n`);
    const text = JSON.stringify(body);
    if (call?.stream !== undefined && (response.headersSent || this.kept?.head !== undefined)) {
      call.stream.send(text, "error");
      call.stream.end(true);
      return;
    }
    this.kept?.whole({ status, headers: { ...headers, ...jsonType }, isStream: false }, text, true);
    if (response.destroyed || response.writableEnded) return;
    if (response.headersSent) {
      response.destroy();
      return;
    }
    const length = { ...jsonType, "content-length": Buffer.byteLength(text) };
    response.writeHead(status, { ...headers, ...length }).end(text);
    if (headers.connection === "close") discardRest(this.request);
  }
}

const jsonType = { "content-type": "application/json; charset=utf-8" };

/** Lets a client that still writes read its answer: what it sends is dropped for a moment, then the connection ends. */
function discardRest(request: IncomingMessage): void {
  request.resume();
  const { socket } = request;
  setTimeout(() => socket.destroy(), 500).unref();
}

function stackOf(error: unknown): string {
  return error instanceof Error ? (error.stack ?? error.message) : String(error);
}
