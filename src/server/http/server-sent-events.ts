/**
 * Server-sent events to one client (WHATWG HTML, section 9.2). A write never waits: what the client has not read is held up to a
 * limit, beyond it the client is cut, so that one slow reader costs a bounded amount of memory and never slows a batch.
 */
import type { ServerResponse } from "node:http";
import type { EventStream } from "../route.ts";
import type { KeepAlive, SilentStream } from "./keep-alive.ts";

export interface StreamLimits {
  /** From here on the writer should put several tokens into one event. */
  readonly congestedBytes: number;
  /** From here on the client is cut. */
  readonly cutBytes: number;
}

export const defaultStreamLimits: StreamLimits = { congestedBytes: 256 * 2 ** 10, cutBytes: 2 ** 20 };

const headers = {
  "content-type": "text/event-stream; charset=utf-8",
  "cache-control": "no-store",
  // nginx buffers answers unless it is told not to.
  "x-accel-buffering": "no",
};

export class ServerSentEvents implements EventStream, SilentStream {
  lastWriteMs: number;
  readonly #response: ServerResponse;
  readonly #keepAlive: KeepAlive;
  readonly #limits: StreamLimits;
  readonly #onCut: () => void;
  #ping = ": ping\n\n";
  #isOpen = true;

  constructor(response: ServerResponse, keepAlive: KeepAlive, limits: StreamLimits, onCut: () => void) {
    this.#response = response;
    this.#keepAlive = keepAlive;
    this.#limits = limits;
    this.#onCut = onCut;
    this.lastWriteMs = keepAlive.nowMs;
    keepAlive.add(this);
    response.once("close", () => this.#close());
  }

  send(data: string, event?: string): void {
    this.#write(frame(data, event));
  }

  keepAliveWith(data: string, event: string): void {
    this.#ping = frame(data, event);
  }

  get isCongested(): boolean {
    return this.#response.writableLength > this.#limits.congestedBytes;
  }

  end(): void {
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
    this.lastWriteMs = this.#keepAlive.nowMs;
    this.#response.write(text);
    if (this.#response.writableLength > this.#limits.cutBytes) this.#cut();
  }

  #start(): void {
    if (!this.#response.headersSent) this.#response.writeHead(200, headers);
  }

  #cut(): void {
    this.#close();
    this.#onCut();
    this.#response.destroy();
  }

  #close(): void {
    this.#isOpen = false;
    this.#keepAlive.remove(this);
  }
}

function frame(data: string, event: string | undefined): string {
  // A line end inside data would end the event: each line gets its own field.
  const lines = data.includes("\n") || data.includes("\r") ? data.replaceAll(/\r\n?|\n/g, "\ndata: ") : data;
  return event === undefined ? `data: ${lines}\n\n` : `event: ${event}\ndata: ${lines}\n\n`;
}
