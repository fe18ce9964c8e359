/**
 * An answer as it is given, kept for a while: whoever asks for the same again gets the same, and a stream that was cut goes on where
 * it was cut. The frames of a stream are numbered from 1; that number is their event id.
 */
import type { OutgoingHttpHeaders } from "node:http";

export interface AnswerHead {
  readonly status: number;
  readonly headers: OutgoingHttpHeaders;
  readonly isStream: boolean;
}

export interface KeptAnswerEvents {
  /** So many bytes more are kept. */
  grown(bytes: number): void;
  /** The last client left, or one came: an answer without any is not computed for ever. */
  clientsChanged(count: number): void;
  /** It is whole, or it failed and is not worth keeping. */
  ended(hasFailed: boolean): void;
}

/** What an answer costs beside its text. */
const overheadBytes = 512;

export class KeptAnswer {
  readonly name: string;
  /** Of what was asked: the same name must mean the same request. */
  readonly fingerprint: string;
  readonly #events: KeptAnswerEvents;
  #head: AnswerHead | undefined;
  #frames: string[] = [];
  #bytes = overheadBytes;
  #isDone = false;
  #isLost = false;
  #clients = 0;
  readonly #listeners = new Set<() => void>();

  constructor(name: string, fingerprint: string, events: KeptAnswerEvents) {
    this.name = name;
    this.fingerprint = fingerprint;
    this.#events = events;
  }

  get head(): AnswerHead | undefined {
    return this.#head;
  }

  get frames(): readonly string[] {
    return this.#frames;
  }

  get bytes(): number {
    return this.#bytes;
  }

  /** Nothing will follow. */
  get isDone(): boolean {
    return this.#isDone;
  }

  /** There was no room for it: it cannot be read any more. */
  get isLost(): boolean {
    return this.#isLost;
  }

  /** The event id of the next frame. */
  get nextId(): number {
    return this.#frames.length + 1;
  }

  get clients(): number {
    return this.#clients;
  }

  /** Status and headers are known. */
  begin(head: AnswerHead): void {
    if (this.#head !== undefined) return;
    this.#head = head;
    this.#tell();
  }

  add(frame: string): void {
    if (this.#isDone || this.#isLost) return;
    this.#frames.push(frame);
    // Text of a script that V8 holds in one byte a character takes half of this.
    const bytes = 2 * frame.length;
    this.#bytes += bytes;
    this.#tell();
    this.#events.grown(bytes);
  }

  end(hasFailed = false): void {
    if (this.#isDone) return;
    this.#isDone = true;
    this.#tell();
    this.#events.ended(hasFailed);
  }

  /** An answer that is no stream. */
  whole(head: AnswerHead, body: string, hasFailed = false): void {
    if (this.#head !== undefined) return;
    this.begin(head);
    this.add(body);
    this.end(hasFailed);
  }

  /** Gives its memory back; who still reads it is cut. */
  lose(): void {
    this.#isLost = true;
    this.#frames = [];
    this.#bytes = 0;
    this.#tell();
  }

  /** A client reads it; the returned function says that it left. `onChange` is called when there is more. */
  join(onChange: () => void = () => undefined): () => void {
    this.#listeners.add(onChange);
    this.#events.clientsChanged(++this.#clients);
    let isHere = true;
    return () => {
      if (!isHere) return;
      isHere = false;
      this.#listeners.delete(onChange);
      this.#events.clientsChanged(--this.#clients);
    };
  }

  #tell(): void {
    for (const listener of [...this.#listeners]) listener();
  }
}
