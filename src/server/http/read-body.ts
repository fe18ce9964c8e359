/**
 * The body of a request, within bounds: its length is refused before it is read where it is declared, and while it is read where it
 * is not; all bodies together have a bound as well. Text is strict UTF-8, JSON is counted while it is parsed. A long body is parsed
 * while it arrives, a piece at a time, and refused at the first piece that is wrong; its bytes are not kept.
 */
import { isAscii } from "node:buffer";
import { createHash } from "node:crypto";
import type { IncomingMessage } from "node:http";
import { setImmediate as othersTurn } from "node:timers/promises";
import { TextDecoder } from "node:util";
import { FormatError } from "../../errors.ts";
import { type Json, JsonReader } from "../../json/parse-json.ts";
import { mayBeKept } from "../answers/kept-answers.ts";
import { HttpError } from "../http-error.ts";
import type { Exchange } from "./exchange.ts";

export interface BodyLimits {
  readonly bytes: number;
  /** Of all bodies that are being read, and of the large ones among them until they are answered. */
  readonly totalBytes: number;
  readonly jsonDepth: number;
  readonly jsonValues: number;
  /** Objects, lists and keys. */
  readonly jsonParts: number;
}

export const defaultBodyLimits: BodyLimits = {
  bytes: 32 * 2 ** 20,
  totalBytes: 256 * 2 ** 20,
  jsonDepth: 256,
  // A number takes about 70 bytes once parsed: a quarter of a million are 18 MB.
  jsonValues: 2 ** 18,
  // Each costs what several numbers cost, in every step up to the prompt. A conversation of 2,600 calls and their results has as many.
  jsonParts: 2 ** 16,
};

/** Disposed of when the request is answered: until then a large body counts among those that are held. */
export interface RequestContent extends Disposable {
  readonly json: Json;
  /** SHA-256 of the body as it arrived, where the answer may be kept for who sends it again. */
  readonly digest: string | undefined;
}

/** What is parsed at once: 0.1 to 5 ms. A body that is no longer is read as a whole. */
const pieceBytes = 2 ** 16;
/** Values that are built at once: a millisecond or two. */
const valuesAtOnce = 4096;
/** What a body that is no longer leaves behind does not count once it is read. */
const smallBytes = 2 ** 20;

export class BodyReader {
  readonly #limits: BodyLimits;
  #held = 0;
  /** What is still to come of large bodies that have told their length. */
  #due = 0;
  #lastTurn: Promise<void> = Promise.resolve();

  constructor(limits: BodyLimits) {
    this.#limits = { ...limits, totalBytes: Math.max(limits.totalBytes, limits.bytes) };
  }

  /** What the headers alone are refused for: 411, 413, 415, or 503 while other bodies take the room. */
  check({ headers }: IncomingMessage): void {
    const encoding = headers["content-encoding"];
    if (encoding !== undefined && encoding.toLowerCase() !== "identity") {
      throw closing(
        415,
        `Bodies in the encoding ${JSON.stringify(encoding)} are not taken`,
        "content-encoding",
        "Send it plain",
      );
    }
    checkContentType(headers["content-type"]);
    const declared = declaredLength(headers);
    this.#checkLength(declared);
    // Small ones need not wait for what others only promise.
    if (declared > smallBytes && this.#held + this.#due + declared > this.#limits.totalBytes) throw tooBusy();
  }

  /**
   * The body of a POST; undefined for other methods, which have none. Throws an HttpError: what `check` refuses, 400, 413, or 503
   * while other bodies take all the room.
   */
  async read({ request, response, match }: Exchange, expectsContinue: boolean): Promise<RequestContent | undefined> {
    if (match!.route.method !== "POST") {
      refuseBody(request);
      return undefined;
    }
    this.check(request);
    if (expectsContinue) response.writeContinue();
    const room = this.#takeRoom(declaredLength(request.headers));
    using body = new IncomingBody(request, room.arrived);
    try {
      const content = await this.#parse(body, mayBeKept(request.headers));
      room.isWhole();
      return { ...content, [Symbol.dispose]: room.free };
    } catch (error) {
      room.free();
      throw error;
    }
  }

  #takeRoom(declared: number) {
    let due = declared > smallBytes ? declared : 0;
    let length = 0;
    this.#due += due;
    const settle = (bytes: number) => {
      const settled = Math.min(due, bytes);
      due -= settled;
      this.#due -= settled;
    };
    const free = () => {
      settle(due);
      this.#held -= length;
      length = 0;
    };
    return {
      free,
      /** Throws an HttpError (413, 503) for bytes that there is no room for. */
      arrived: (bytes: number) => {
        settle(bytes);
        length += bytes;
        this.#held += bytes;
        this.#checkLength(length);
        if (this.#held > this.#limits.totalBytes) throw tooBusy();
      },
      isWhole: () => {
        if (length <= smallBytes) free();
      },
    };
  }

  async #parse(body: IncomingBody, hashes: boolean): Promise<Pick<RequestContent, "json" | "digest">> {
    const { jsonDepth: maxDepth, jsonValues: maxValues, jsonParts: maxParts } = this.#limits;
    const text = new Utf8Text();
    const reader = new JsonReader({ maxDepth, maxValues, maxParts }, { repairsStrings: true });
    const hash = hashes ? createHash("sha256") : undefined;
    for (let isFirst = true; ; isFirst = false) {
      const { bytes, isLast } = await body.next();
      if (!isFirst || !isLast) await this.#turn();
      hash?.update(bytes);
      try {
        reader.give(text.next(bytes, isLast), isLast);
        while (!reader.advance(valuesAtOnce)) await this.#turn();
      } catch (error) {
        throw error instanceof FormatError ? malformed(error, isLast) : error;
      }
      if (isLast) return { json: reader.value, digest: hash?.digest("base64") };
    }
  }

  /** Large bodies go on one at a time, one in a turn of the event loop: many hold it no longer than one. */
  #turn(): Promise<void> {
    this.#lastTurn = this.#lastTurn.then(() => othersTurn());
    return this.#lastTurn;
  }

  #checkLength(length: number): void {
    const { bytes } = this.#limits;
    if (length > bytes) throw closing(413, `The body is longer than ${bytes} bytes`, "body-too-large", "Shorten it");
  }
}

interface Piece {
  readonly bytes: Buffer;
  readonly isLast: boolean;
}

/**
 * The bytes of a body as they arrive, gathered to pieces; its client is not read from until the next one is asked for. With listeners:
 * leaving a `for await` early would destroy the connection before a refusal is sent.
 */
class IncomingBody implements Disposable {
  readonly #request: IncomingMessage;
  readonly #count: (added: number) => void;
  #chunks: Buffer[] = [];
  #length = 0;
  #hasEnded = false;
  /** Who waits for the next piece. */
  #reader: PromiseWithResolvers<Piece> | undefined;

  /** `count` hears of every chunk, and throws to refuse it. */
  constructor(request: IncomingMessage, count: (added: number) => void) {
    this.#request = request;
    this.#count = count;
    request.on("data", this.#onData);
    request.once("end", this.#onEnd);
    request.once("close", this.#onClose);
  }

  /** Rejects with an HttpError: what `count` refused, or 400 when the client went away. */
  next(): Promise<Piece> {
    this.#reader = Promise.withResolvers();
    const { promise } = this.#reader;
    this.#serve();
    if (this.#request.closed) this.#onClose();
    if (this.#reader !== undefined) this.#request.resume();
    return promise;
  }

  readonly #onData = (chunk: Buffer): void => {
    this.#chunks.push(chunk);
    this.#length += chunk.length;
    try {
      this.#count(chunk.length);
      this.#serve();
    } catch (error) {
      this.#reader?.reject(error);
    }
  };

  /** May come while nobody waits: Node ends a stream that was paused at its last chunk. */
  readonly #onEnd = (): void => {
    this.#hasEnded = true;
    this.#serve();
  };

  readonly #onClose = (): void =>
    this.#reader?.reject(closing(400, "The body ended before its declared length", "incomplete-body", "Send it whole"));

  #serve(): void {
    if (this.#length < pieceBytes && !this.#hasEnded) return;
    this.#request.pause();
    if (this.#reader === undefined) return;
    const bytes = this.#chunks.length === 1 ? this.#chunks[0]! : Buffer.concat(this.#chunks, this.#length);
    this.#reader.resolve({ bytes, isLast: this.#hasEnded });
    this.#reader = undefined;
    this.#chunks = [];
    this.#length = 0;
  }

  [Symbol.dispose](): void {
    this.#request.off("data", this.#onData).off("end", this.#onEnd).off("close", this.#onClose);
    this.#chunks = [];
  }
}

/** Text from the pieces of its bytes, without its byte order mark; a piece may end anywhere. */
class Utf8Text {
  #decoder: TextDecoder | undefined;
  #isBegun = false;
  /** The last piece may have ended within a character. */
  #isOpen = false;

  /** Throws an HttpError for what is not UTF-8. */
  next(bytes: Buffer, isLast: boolean): string {
    const text = this.#decode(bytes, isLast);
    this.#isOpen = bytes.length > 0 ? bytes.at(-1)! >= 0x80 : this.#isOpen;
    const isBegun = this.#isBegun;
    this.#isBegun = true;
    return !isBegun && text.startsWith("\ufeff") ? text.slice(1) : text;
  }

  #decode(bytes: Buffer, isLast: boolean): string {
    if (!this.#isOpen && isAscii(bytes)) return bytes.toString("latin1"); // a third of the time, for the megabytes of an image
    this.#decoder ??= new TextDecoder("utf-8", { fatal: true, ignoreBOM: true });
    try {
      return this.#decoder.decode(bytes, { stream: !isLast });
    } catch (cause) {
      const details = { code: "utf-8", cause };
      throw new HttpError(400, "The body is not UTF-8", isLast ? details : { ...details, headers: closes });
    }
  }
}

/** 0 where none is declared: the body comes in chunks. */
function declaredLength(headers: IncomingMessage["headers"]): number {
  return Number(headers["content-length"] ?? 0);
}

/** JSON, and nothing that a page of another site can send without asking first (text/plain, forms). */
function checkContentType(type: string | undefined): void {
  const [media = "", ...parameters] = (type ?? "")
    .toLowerCase()
    .split(";")
    .map((part) => part.trim());
  const isJson = media === "application/json" || /^application\/[\w.+-]+\+json$/.test(media);
  const charset = parameters
    .find((part) => part.startsWith("charset="))
    ?.slice(8)
    .replaceAll('"', "");
  if (isJson && (charset === undefined || charset === "utf-8" || charset === "utf8")) return;
  throw closing(
    415,
    `A body of type ${JSON.stringify(type ?? "")} is not taken`,
    "content-type",
    "Send JSON: content-type: application/json",
  );
}

/** What follows a piece that is wrong is not read. */
function malformed(error: FormatError, isLast: boolean): HttpError {
  const details = { code: error.code, cause: error };
  return new HttpError(400, error.message, isLast ? details : { ...details, headers: closes });
}

const closes = { connection: "close" };

/** An error after which the rest of the body is not read: the connection ends with the answer. */
function closing(status: number, message: string, code: string, hint: string): HttpError {
  return new HttpError(status, message, { code, hint, headers: closes });
}

function tooBusy(): HttpError {
  return new HttpError(503, "Too many large requests are being read", {
    code: "overloaded",
    retryAfterSeconds: 2,
    headers: closes,
  });
}

function refuseBody({ headers }: IncomingMessage): void {
  if (headers["transfer-encoding"] === undefined && Number(headers["content-length"] ?? 0) === 0) return;
  throw new HttpError(400, "A request of this method has no body", {
    code: "unexpected-body",
    headers: closes,
  });
}
