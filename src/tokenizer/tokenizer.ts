/**
 * Text to token ids and back, by a tokenizer.json of the DeepSeek family: byte-level BPE, nothing added at the ends.
 *   const tokenizer = Tokenizer.fromJson(JSON.parse(text));  tokenizer.decode(tokenizer.encode("hello"))  // "hello"
 */
import { RequestError } from "../errors.ts";
import { finishSteps } from "../finish-steps.ts";
import { type AddedToken, AddedTokenFinder } from "./added-tokens.ts";
import { mergeInSteps, mergePairs } from "./byte-pair-merges.ts";
import { parseTokenizer, type TokenizerData } from "./parse-tokenizer.ts";
import { nextCut, splitWords } from "./split-words.ts";
import { StreamDecoder } from "./stream-decoder.ts";

export interface EncodeOptions {
  /** Recognise the spelling of added tokens in the text. Off by default: text from outside must not become a special token. */
  readonly special?: boolean;
}

export interface DecodeOptions {
  /** Leave out the tokens that the file marks as special (not `<think>`, not the turn markers: they are not marked). */
  readonly skipSpecialTokens?: boolean;
}

/** Pieces up to this many UTF-16 units are remembered, and this many of them. */
const cachedPieceLength = 32;
const cachedPieces = 65_536;
/** Characters, and merges of a longer piece, that are encoded at once where others wait: some ten milliseconds. */
const sliceLength = 16_384;
/** A stretch without a place to cut takes 20 times its length while it is merged. */
const longestStretch = 2 ** 18;

export class Tokenizer {
  readonly #data: TokenizerData;
  readonly #added: ReadonlyMap<number, AddedToken>;
  /** Searched one after the other: first the exact tokens, then, in what is between, the normalised ones. */
  readonly #finders: readonly [AddedTokenFinder, AddedTokenFinder];
  readonly #cache = new Map<string, readonly number[]>();
  readonly #utf8 = new TextEncoder();

  private constructor(data: TokenizerData) {
    this.#data = data;
    this.#added = new Map(data.added.map((token) => [token.id, token]));
    this.#finders = [
      new AddedTokenFinder(data.added.filter((token) => !token.normalized)),
      new AddedTokenFinder(data.added.filter((token) => token.normalized)),
    ];
  }

  /** Throws a FormatError that says what is wrong with the file or not supported. */
  static fromJson(json: unknown): Tokenizer {
    return finishSteps(Tokenizer.inSteps(json));
  }

  /** The same in steps of a few milliseconds, so that a large file does not hold up what runs beside it (see parseTokenizer). */
  static *inSteps(json: unknown): Generator<undefined, Tokenizer> {
    return new Tokenizer(yield* parseTokenizer(json));
  }

  /** One more than the greatest id. */
  get vocabSize(): number {
    return this.#data.bytes.size;
  }

  /** Token ids of a text. A lone surrogate, which UTF-8 cannot hold, counts as U+FFFD. */
  encode(text: string, options: EncodeOptions = {}): number[] {
    const ids: number[] = [];
    const wellFormed = text.toWellFormed();
    if (!options.special) {
      this.#encodeText(wellFormed, ids);
      return ids;
    }
    for (const stretch of this.#stretches(wellFormed)) {
      if (typeof stretch === "string") this.#encodeText(stretch, ids);
      else if (stretch !== undefined) ids.push(stretch);
    }
    return ids;
  }

  /**
   * The ids of a text slice by slice, so that a long one does not hold up what runs beside it; a slice may be empty. Throws a
   * RequestError for a stretch of more than 262,144 characters that cannot be cut.
   */
  *encodeInSlices(text: string, options: EncodeOptions = {}): Generator<readonly number[], void> {
    const wellFormed = text.toWellFormed();
    if (!options.special) {
      yield* this.#encodeTextInSlices(wellFormed);
      return;
    }
    for (const stretch of this.#stretches(wellFormed)) {
      if (typeof stretch === "string") yield* this.#encodeTextInSlices(stretch);
      else yield stretch === undefined ? [] : [stretch];
    }
  }

  /** Plain text and the ids of added tokens between; undefined where a long search may pause. */
  *#stretches(wellFormed: string): Generator<string | number | undefined, void> {
    const [exact, normalized] = this.#finders;
    for (const stretch of exact.split(wellFormed)) {
      if (typeof stretch === "string") yield* normalized.split(stretch);
      else yield stretch;
    }
  }

  *#encodeTextInSlices(wellFormed: string): Generator<number[], void> {
    for (let start = 0; start < wellFormed.length; ) {
      const end = nextCut(wellFormed, start + sliceLength);
      if (end - start <= 2 * sliceLength) {
        const ids: number[] = [];
        this.#encodeText(wellFormed.slice(start, end), ids);
        yield ids;
      } else yield* this.#encodeStretch(wellFormed.slice(start, end));
      start = end;
    }
  }

  /** Of text without a place to cut: piece by piece, and of a long one some merges at a time. */
  *#encodeStretch(text: string): Generator<number[], void> {
    if (text.length > longestStretch) {
      throw new RequestError(`A stretch of ${text.length} characters has no word that ends`, {
        code: "word-too-long",
        hint: `Put a space or a line end somewhere: ${longestStretch} characters are the most`,
      });
    }
    const pieces: [number, number][] = [];
    splitWords(text, (start, end) => pieces.push([start, end]));
    let ids: number[] = [];
    let sinceSlice = 0;
    for (const [start, end] of pieces) {
      if (end - start <= cachedPieceLength) this.#pushPiece(text.slice(start, end), ids);
      else {
        const tokens = this.#bytesAsTokens(text.slice(start, end));
        const merging = mergeInSteps(tokens, tokens.length, this.#data.merges, sliceLength);
        let step = merging.next();
        for (; !step.done; step = merging.next()) yield [];
        for (const id of tokens.subarray(0, step.value)) ids.push(id);
      }
      sinceSlice += end - start;
      if (sinceSlice < sliceLength) continue;
      yield ids;
      ids = [];
      sinceSlice = 0;
    }
    yield ids;
  }

  /** The text of token ids; bytes that are not UTF-8 become U+FFFD. Throws a RequestError for an id that no token has. */
  decode(ids: readonly number[], options: DecodeOptions = {}): string {
    const decoder = this.createDecoder(options);
    return ids.map((id) => decoder.push(id)).join("") + decoder.end();
  }

  createDecoder(options: DecodeOptions = {}): StreamDecoder {
    return new StreamDecoder(this, options.skipSpecialTokens ?? false);
  }

  /** The id of a token by its spelling in the file: an added token, or a vocabulary entry in byte letters. */
  tokenId(content: string): number | undefined {
    return this.#data.ids.get(content);
  }

  has(id: number): boolean {
    return this.#data.bytes.has(id);
  }

  /** The bytes that a token stands for: a view, which is not to be written to. */
  tokenBytes(id: number): Uint8Array {
    const bytes = this.#data.bytes.of(id);
    if (bytes !== undefined) return bytes;
    throw new RequestError(`No token has the id ${id}`, {
      code: "token-id",
      hint: `The ids of this tokenizer go from 0 to ${this.vocabSize - 1}`,
    });
  }

  isAdded(id: number): boolean {
    return this.#added.has(id);
  }

  isSpecial(id: number): boolean {
    return this.#added.get(id)?.special ?? false;
  }

  #encodeText(text: string, ids: number[]): void {
    splitWords(text, (start, end) => {
      const piece = text.slice(start, end);
      if (end - start <= cachedPieceLength) this.#pushPiece(piece, ids);
      else for (const id of this.#encodePiece(piece)) ids.push(id);
    });
  }

  /** Of a piece that is short enough to be remembered. */
  #pushPiece(piece: string, ids: number[]): void {
    let known = this.#cache.get(piece);
    if (known === undefined) {
      known = Array.from(this.#encodePiece(piece));
      if (this.#cache.size >= cachedPieces) this.#cache.clear();
      this.#cache.set(piece, known);
    }
    for (const id of known) ids.push(id);
  }

  #encodePiece(piece: string): Int32Array {
    const tokens = this.#bytesAsTokens(piece);
    return tokens.subarray(0, mergePairs(tokens, tokens.length, this.#data.merges));
  }

  #bytesAsTokens(piece: string): Int32Array {
    const bytes = this.#utf8.encode(piece);
    const tokens = new Int32Array(bytes.length);
    for (let i = 0; i < bytes.length; i++) tokens[i] = this.#data.idOfByte[bytes[i]!]!;
    return tokens;
  }
}
