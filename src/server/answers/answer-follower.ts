/**
 * A client that reads a kept answer, from its beginning or from behind an event: what is there at once, the rest as it comes. It takes
 * from the answer as fast as it reads, so a slow one costs no memory of its own.
 */
import type { ServerResponse } from "node:http";
import type { KeepAlive, SilentStream } from "../http/keep-alive.ts";
import { HttpError } from "../http-error.ts";
import type { KeptAnswer } from "./kept-answer.ts";

/** Bytes that may wait for the client in our own buffers. */
const mostWaitingBytes = 64 * 2 ** 10;

export class AnswerFollower implements SilentStream {
  lastWriteMs: number;
  readonly #answer: KeptAnswer;
  readonly #response: ServerResponse;
  readonly #keepAlive: KeepAlive;
  readonly #closed = Promise.withResolvers<void>();
  #next: number;

  private constructor(answer: KeptAnswer, response: ServerResponse, after: number, keepAlive: KeepAlive) {
    this.#answer = answer;
    this.#response = response;
    this.#keepAlive = keepAlive;
    this.#next = after;
    this.lastWriteMs = keepAlive.nowMs;
  }

  /** Resolves when the client has it all, or is gone. `after`: the event that the client has seen last; 0: none. */
  static async follow(
    answer: KeptAnswer,
    response: ServerResponse,
    after: number,
    keepAlive: KeepAlive,
  ): Promise<void> {
    if (after > answer.frames.length) throw unknownEvent();
    const follower = new AnswerFollower(answer, response, after, keepAlive);
    const leave = answer.join(() => follower.#pump());
    keepAlive.add(follower);
    response.on("drain", () => follower.#pump());
    response.once("close", () => follower.#closed.resolve());
    follower.#pump();
    await follower.#closed.promise;
    keepAlive.remove(follower);
    leave();
  }

  ping(): void {
    if (this.#answer.head?.isStream && this.#response.headersSent) this.#write(": ping\n\n");
  }

  #pump(): void {
    const { head, frames, isDone, isLost } = this.#answer;
    if (isLost) this.#response.destroy();
    if (head === undefined || this.#response.destroyed || this.#response.writableEnded) return;
    if (!this.#response.headersSent)
      this.#response.writeHead(head.status, { ...head.headers, "idempotent-replayed": "true" });
    while (this.#next < frames.length && this.#response.writableLength < mostWaitingBytes)
      this.#write(frames[this.#next++]!);
    if (isDone && this.#next === frames.length) this.#response.end();
  }

  #write(text: string): void {
    this.lastWriteMs = this.#keepAlive.nowMs;
    this.#response.write(text);
  }
}

/** The number in Last-Event-ID; throws an HttpError (400) for what is none of our ids. */
export function lastEventId(header: string): number {
  if (/^\d{1,9}$/.test(header)) return Number(header);
  throw unknownEvent();
}

function unknownEvent(): HttpError {
  return new HttpError(400, "Last-Event-ID is no event of this stream", {
    code: "last-event-id",
    where: "Last-Event-ID",
    hint: "Send the id of the last event that arrived, or leave it out to read from the beginning",
  });
}
