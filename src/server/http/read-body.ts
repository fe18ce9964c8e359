/**
 * The body of a request, within bounds: its length is refused before it is read where it is declared, and while it is read where it
 * is not; all bodies together have a bound as well. Text is strict UTF-8, JSON is counted while it is parsed.
 */
import { isAscii } from "node:buffer";
import type { IncomingMessage } from "node:http";
import { setImmediate as othersTurn } from "node:timers/promises";
import { FormatError } from "../../errors.ts";
import { type Json, JsonObject, JsonReader } from "../../json/parse-json.ts";
import { HttpError } from "../http-error.ts";
import type { Exchange } from "./exchange.ts";

export interface BodyLimits {
  readonly bytes: number;
  /** Of all bodies that are being read. */
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

export interface RequestContent {
  readonly json: Json;
  /** As it arrived. */
  readonly bytes: Uint8Array;
}

export class BodyReader {
  readonly #limits: BodyLimits;
  #held = 0;

  constructor(limits: BodyLimits) {
    this.#limits = limits;
  }

  /** What the headers alone are refused for: 411, 413, 415. */
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
    if (Number(headers["content-length"] ?? 0) > this.#limits.bytes) throw this.#tooLarge();
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
    const bytes = await this.#read(request);
    return { json: await parseBounded(decodeText(bytes), this.#limits), bytes };
  }

  /** With listeners: leaving a `for await` early would destroy the connection before the refusal is sent. */
  #read(request: IncomingMessage): Promise<Buffer> {
    const { promise, resolve, reject } = Promise.withResolvers<Buffer>();
    const chunks: Buffer[] = [];
    let length = 0;
    const onData = (chunk: Buffer) => {
      length += chunk.length;
      this.#held += chunk.length;
      chunks.push(chunk);
      if (length > this.#limits.bytes) reject(this.#tooLarge());
      else if (this.#held > this.#limits.totalBytes) reject(tooBusy());
    };
    request.on("data", onData);
    request.once("end", () => resolve(Buffer.concat(chunks, length)));
    request.once("close", () => reject(incomplete()));
    return promise.finally(() => {
      request.off("data", onData);
      this.#held -= length;
    });
  }

  #tooLarge(): HttpError {
    return closing(413, `The body is longer than ${this.#limits.bytes} bytes`, "body-too-large", "Shorten it");
  }
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

function decodeText(bytes: Buffer): string {
  if (isAscii(bytes)) return bytes.toString("latin1"); // a third of the time, for the megabytes of an image
  try {
    return new TextDecoder("utf-8", { fatal: true }).decode(bytes);
  } catch (cause) {
    throw new HttpError(400, "The body is not UTF-8", { code: "utf-8", cause });
  }
}

/** Values that are read before others have their turn: a millisecond or two. */
const valuesAtOnce = 4096;

async function parseBounded(text: string, limits: BodyLimits): Promise<Json> {
  const { jsonDepth: maxDepth, jsonValues: maxValues, jsonParts: maxParts } = limits;
  const isLong = text.length > 2 ** 16;
  try {
    if (isLong) await othersTurn();
    const reader = new JsonReader(text, { maxDepth, maxValues, maxParts });
    while (!reader.advance(valuesAtOnce)) await othersTurn();
    if (isLong) await othersTurn();
    const hasSurrogates = text.includes("\\u") && /\\u[dD][89a-fA-F]/.test(text);
    return hasSurrogates ? wellFormed(reader.value) : reader.value;
  } catch (error) {
    if (error instanceof FormatError) throw new HttpError(400, error.message, { code: error.code, cause: error });
    throw error;
  }
}

/** Half a surrogate pair, as programs write it that cut strings anywhere, becomes U+FFFD: no token has half a character. */
function wellFormed(json: Json): Json {
  if (typeof json === "string") return json.toWellFormed();
  if (Array.isArray(json)) return json.map(wellFormed);
  if (!(json instanceof JsonObject)) return json;
  return new JsonObject(json.entries.map(([key, value]) => [key.toWellFormed(), wellFormed(value)]));
}

/** An error after which the rest of the body is not read: the connection ends with the answer. */
function closing(status: number, message: string, code: string, hint: string): HttpError {
  return new HttpError(status, message, { code, hint, headers: { connection: "close" } });
}

function incomplete(): HttpError {
  return closing(400, "The body ended before its declared length", "incomplete-body", "Send it whole");
}

function tooBusy(): HttpError {
  return new HttpError(503, "Too many large requests are being read", {
    code: "overloaded",
    retryAfterSeconds: 2,
    headers: { connection: "close" },
  });
}

function refuseBody({ headers }: IncomingMessage): void {
  if (headers["transfer-encoding"] === undefined && Number(headers["content-length"] ?? 0) === 0) return;
  throw new HttpError(400, "A request of this method has no body", {
    code: "unexpected-body",
    headers: { connection: "close" },
  });
}
