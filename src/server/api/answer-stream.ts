/**
 * One answer as server-sent events. Before the first event an error is thrown, and the gateway answers it with its status; after
 * it the status is sent, and the error becomes an event. While a client reads too slowly, text is gathered into fewer events.
 */
import { FreeholdError } from "../../errors.ts";
import type { AnswerDelta } from "../generation/answer-reader.ts";
import { append } from "../generation/run-answers.ts";
import type { Call, EventStream } from "../route.ts";

export class AnswerStream {
  readonly #stream: EventStream;
  #hasSent = false;

  constructor(call: Call) {
    this.#stream = call.openStream();
  }

  get isCongested(): boolean {
    return this.#stream.isCongested;
  }

  send(value: unknown, event?: string): void {
    this.#hasSent = true;
    this.#stream.send(JSON.stringify(value), event);
  }

  /** The end mark of OpenAI's streams. */
  sendDone(): void {
    this.#stream.send("[DONE]");
  }

  keepAliveWith(value: unknown, event: string): void {
    this.#stream.keepAliveWith(JSON.stringify(value), event);
  }

  end(): void {
    this.#stream.end();
  }

  /** Runs the answer; an error on the way is told by `tell`, if the client still listens. */
  async run(answer: () => Promise<void>, tell: (error: StreamError) => void): Promise<void> {
    try {
      await answer();
      this.#stream.end();
    } catch (error) {
      if (!this.#hasSent) throw error;
      tell(describeError(error));
      this.#stream.end(true);
    }
  }
}

export interface StreamError {
  readonly message: string;
  readonly code: string;
}

/** Messages of unexpected errors stay inside: they may tell of the server's files. */
function describeError(error: unknown): StreamError {
  if (!(error instanceof FreeholdError)) return { code: "internal_error", message: "The server failed" };
  return { code: error.code, message: error.hint === undefined ? error.message : `${error.message}. ${error.hint}` };
}

const maxGathered = 16_384;

/** Deltas of several answers, gathered while the client is slow, up to so many characters. */
export class DeltaGatherer {
  readonly #stream: AnswerStream;
  readonly #send: (index: number, deltas: readonly AnswerDelta[]) => void;
  readonly #waiting = new Map<number, AnswerDelta[]>();
  #characters = 0;

  constructor(stream: AnswerStream, send: (index: number, deltas: readonly AnswerDelta[]) => void) {
    this.#stream = stream;
    this.#send = send;
  }

  push(index: number, deltas: readonly AnswerDelta[]): void {
    if (this.#waiting.size === 0 && !this.#stream.isCongested) {
      this.#send(index, deltas);
      return;
    }
    const waiting = this.#waiting.get(index) ?? [];
    this.#waiting.set(index, waiting);
    for (const delta of deltas) {
      append(waiting, delta);
      this.#characters += "text" in delta ? delta.text.length : delta.name.length;
    }
    if (!this.#stream.isCongested || this.#characters > maxGathered) this.flush();
  }

  flush(): void {
    for (const [index, deltas] of this.#waiting) this.#send(index, deltas);
    this.#waiting.clear();
    this.#characters = 0;
  }
}
