/**
 * Server-sent events to one client (WHATWG HTML, section 9.2). A write never waits: what the client has not read is held up to a
 * limit, beyond it the client is cut, so that one slow reader costs a bounded amount of memory and never slows a batch.
 */
import type { ServerResponse } from "node:http";
import type { KeptAnswer } from "../answers/kept-answer.ts";
import type { EventStream } from "../route.ts";
import type { KeepAlive, SilentStream } from "./keep-alive.ts";

export interface StreamLimits {
  /** From here on the writer should put several tokens into one event. */
  readonly congestedBytes: number;
  /** From here on the client is cut. */
  readonly cutBytes: number;
}

export const defaultStreamLimits: StreamLimits = { congestedBytes: 256 * 2 ** 10, cutBytes: 2 ** 20 };

export interface EventParts {
  readonly keepAlive: KeepAlive;
  readonly limits: StreamLimits;
  /** The client read too slowly. */
  onCut(): void;
  /** Where the events are kept for a client that comes back: they have ids then. */
  readonly kept?: KeptAnswer | undefined;
}

const headers = {
  "content-type": "text/event-stream; charset=utf-8",
  "cache-control": "no-store",
  // nginx buffers answers unless it is told not to.
  "x-accel-buffering": "no",
};

const head = { status: 200, headers, isStream: true } as const;

export class ServerSentEvents implements EventStream, SilentStream {
  lastWriteMs: number;
  readonly #response: ServerResponse;
  readonly #parts: EventParts;
  #ping = ": ping\n\n";
  #isOpen = true;

  constructor(response: ServerResponse, parts: EventParts) {
    this.#response = response;
    this.#parts = parts;
    this.lastWriteMs = parts.keepAlive.nowMs;
    parts.keepAlive.add(this);
    response.once("close", () => this.#close());
  }

  send(data: string, event?: string): void {
    const { kept } = this.#parts;
    const text = frame(data, event, kept?.nextId);
    if (kept !== undefined) {
      kept.begin(head);
      kept.add(text);
    }
    this.#write(text);
  }

  keepAliveWith(data: string, event: string): void {
    this.#ping = frame(data, event, undefined);
  }

  get isCongested(): boolean {
    return this.#response.writableLength > this.#parts.limits.congestedBytes;
  }

  /** `hasFailed`: what was sent is not worth keeping. */
  end(hasFailed = false): void {
    const { kept } = this.#parts;
    kept?.begin(head);
    kept?.end(hasFailed);
    if (!this.#isOpen) return;
    this.#start();
    this.#close();
    this.#response.end();
  }

  ping(): void {
    this.#write(this.#ping);
  }

  #write(text: string): void {
    if (!this.#isOpen) return;
    this.#start();
    this.lastWriteMs = this.#parts.keepAlive.nowMs;
    this.#response.write(text);
    if (this.#response.writableLength > this.#parts.limits.cutBytes) this.#cut();
  }

  #start(): void {
    if (this.#response.headersSent) return;
    this.#parts.kept?.begin(head);
    this.#response.writeHead(head.status, headers);
  }

  #cut(): void {
    this.#close();
    this.#parts.onCut();
    this.#response.destroy();
  }

  #close(): void {
    this.#isOpen = false;
    this.#parts.keepAlive.remove(this);
  }
}

function frame(data: string, event: string | undefined, id: number | undefined): string {
  // A line end inside data would end the event: each line gets its own field.
  const lines = data.includes("\n") || data.includes("\r") ? data.replaceAll(/\r\n?|\n/g, "\ndata: ") : data;
  const name = event === undefined ? "" : `event: ${event}\n`;
  return id === undefined ? `${name}data: ${lines}\n\n` : `id: ${id}\n${name}data: ${lines}\n\n`;
}
