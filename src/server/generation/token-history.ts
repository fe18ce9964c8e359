/**
 * How answers were tokenised, by their text. A model's tokens are often not those that a tokenizer makes of their text; a client
 * sends a conversation back as text, and of canonical tokens the prefix cache would know nothing from the first one on that
 * differs. Here each stretch of text that an answer wrote is known by the tokens before it and by what it says:
 *   SHA-256(ids of all tokens before it, its text without white space at the end) -> the ids that were sampled
 * so that a prompt is encoded as it was computed, turn after turn. Stretches end at special tokens: those are the prompt's
 * structure, and no text becomes one. What is canonical anyway is not kept.
 */
import { createHash, type Hash } from "node:crypto";
import { encodePart, type PromptPart } from "../../chat/prompt.ts";
import type { DurableMap } from "../../engine/cache/durable-map.ts";
import { isContentId } from "../../engine/vision/content-ids.ts";
import type { Tokenizer } from "../../tokenizer/tokenizer.ts";
import { requestPacer } from "../request-pacer.ts";
import { encodeText } from "./encode-text.ts";

/** Ids that are copied at once, not one by one: of a million that takes 40 ms. */
const longPart = 4096;

/** An answer and what it answered; `stopString` ended it and is not part of what the client has. */
export interface AnsweredTokens {
  readonly promptIds: readonly number[];
  readonly answerIds: readonly number[];
  readonly stopString: string | undefined;
}

export class TokenHistory {
  readonly #map: DurableMap;

  constructor(map: DurableMap) {
    this.#map = map;
  }

  /** Ids of a prompt. `placeOf`: what stands for a special token, where that is not the token itself (an image). */
  async encode(
    namespace: string,
    parts: readonly PromptPart[],
    tokenizer: Tokenizer,
    placeOf: (id: number) => readonly number[] = (id) => [id],
  ): Promise<number[]> {
    const before = new TokensBefore();
    const pacer = requestPacer();
    let ids: number[] = [];
    for (const part of parts) {
      const known = "text" in part ? await this.#sampledIds(namespace, before, part.text, tokenizer) : undefined;
      const added =
        known ??
        ("text" in part ? await encodeText(part.text, tokenizer, pacer) : encodePart(part, tokenizer).flatMap(placeOf));
      before.push(added);
      if (added.length > longPart) ids = ids.concat(added);
      else for (const id of added) ids.push(id);
      await pacer.pause();
    }
    return ids;
  }

  /** Keeps what encoding the text of an answer anew would lose. */
  remember(namespace: string, { promptIds, answerIds, stopString }: AnsweredTokens, tokenizer: Tokenizer): void {
    const isBorder = (id: number) => isContentId(id) || tokenizer.isAdded(id);
    const start = promptIds.findLastIndex(isBorder) + 1;
    const before = new TokensBefore();
    before.push(promptIds.slice(0, start));
    let stretch = promptIds.slice(start);
    for (const id of answerIds) {
      if (!isBorder(id)) stretch.push(id);
      else {
        this.#keep(namespace, before, stretch, tokenizer.decode(stretch), tokenizer);
        before.push([...stretch, id]);
        stretch = [];
      }
    }
    const text = tokenizer.decode(stretch);
    const end = stopString === undefined ? -1 : text.indexOf(stopString);
    this.#keep(namespace, before, stretch, end < 0 ? text : text.slice(0, end), tokenizer);
  }

  #keep(namespace: string, before: TokensBefore, ids: readonly number[], text: string, tokenizer: Tokenizer): void {
    const sampled = idsOfText(ids, text, tokenizer);
    if (sampled === undefined || isSame(sampled, tokenizer.encode(text))) return;
    this.#map.put(namespace, before.keyOf(text), new Uint8Array(Int32Array.from(ids).buffer));
  }

  async #sampledIds(
    namespace: string,
    before: TokensBefore,
    text: string,
    tokenizer: Tokenizer,
  ): Promise<readonly number[] | undefined> {
    const bytes = await this.#map.get(namespace, before.keyOf(text));
    if (bytes === undefined || bytes.length % 4 !== 0) return undefined;
    return idsOfText(new Int32Array(bytes.slice().buffer), text, tokenizer);
  }
}

/** The tokens of a prompt up to a place, as a key of what follows. */
class TokensBefore {
  readonly #hash: Hash = createHash("sha256");
  /** Not hashed before it is needed: the last text of a prompt may be the longest. */
  #waiting: (readonly number[])[] = [];

  push(ids: readonly number[]): void {
    this.#waiting.push(ids);
  }

  keyOf(text: string): string {
    for (const ids of this.#waiting) this.#hash.update(new Uint8Array(Int32Array.from(ids).buffer));
    this.#waiting = [];
    return this.#hash.copy().update(`\n${text.trimEnd()}`).digest("base64url");
  }
}

/**
 * Ids whose bytes are exactly those of a text: as many of `sampled` as its beginning has, and canonical ones for what is left, be it
 * that white space was cut off or a stop string. Undefined when none of them fits.
 */
function idsOfText(sampled: ArrayLike<number>, text: string, tokenizer: Tokenizer): number[] | undefined {
  const bytes = Buffer.from(text, "utf8");
  const ids: number[] = [];
  let [length, at, whole] = [0, 0, 0];
  for (let i = 0; i < sampled.length; i++) {
    const id = sampled[i]!;
    if (!tokenizer.has(id) || tokenizer.isAdded(id)) break; // of another tokenizer
    const ofToken = tokenizer.tokenBytes(id);
    if (!bytes.subarray(at, at + ofToken.length).equals(ofToken)) break;
    ids.push(id);
    at += ofToken.length;
    if (isCharacterBorder(bytes, at)) [length, whole] = [ids.length, at];
  }
  if (length === 0) return undefined;
  ids.length = length;
  for (const id of tokenizer.encode(bytes.toString("utf8", whole))) ids.push(id);
  return ids;
}

/** Whether no character of UTF-8 goes on here. */
function isCharacterBorder(bytes: Uint8Array, at: number): boolean {
  return at === bytes.length || (bytes[at]! & 0xc0) !== 0x80;
}

function isSame(a: readonly number[], b: readonly number[]): boolean {
  return a.length === b.length && a.every((id, i) => id === b[i]);
}
