/**
 * JSON with nothing lost. JSON.parse forgets the difference of `1.0` and `1`, rounds big integers, sorts keys that look like
 * indices and keeps only the last of two equal keys; file headers must refuse such things and prompts must reproduce them.
 * Here an object is its list of entries, a number its text. Depth is bounded, so hostile nesting is an error and no crash.
 */
import { FormatError } from "../errors.ts";

export type Json = null | boolean | string | JsonNumber | readonly Json[] | JsonObject;

/** A number as it was written; `value` is the double nearest to it. */
export class JsonNumber {
  readonly text: string;

  constructor(text: string) {
    this.text = text;
  }

  get value(): number {
    return Number(this.text);
  }
}

/** Entries in the order of the text, equal keys included. */
export class JsonObject {
  readonly entries: readonly (readonly [string, Json])[];

  constructor(entries: readonly (readonly [string, Json])[]) {
    this.entries = entries;
  }

  /** The value of a key: the last one, as in JSON.parse. */
  get(key: string): Json | undefined {
    return this.entries.findLast(([name]) => name === key)?.[1];
  }

  /** The first key that stands twice. */
  duplicateKey(): string | undefined {
    const seen = new Set<string>();
    for (const [key] of this.entries) {
      if (seen.has(key)) return key;
      seen.add(key);
    }
    return undefined;
  }
}

export interface JsonLimits {
  readonly maxDepth?: number;
  /** Every value counts, nested ones too. */
  readonly maxValues?: number;
  /** Objects, lists and keys: what takes time. */
  readonly maxParts?: number;
}

/** Throws a FormatError (code "json") that names the place. */
export function parseJson(text: string, limits: JsonLimits = {}): Json {
  const reader = new JsonReader(limits);
  reader.give(text, true);
  reader.advance();
  return reader.value;
}

/** Characters of a number: one without an end would be read again with every piece of it. */
const maxNumberLength = 2 ** 16;

const [quote, comma, colon, backslash] = [0x22, 0x2c, 0x3a, 0x5c];
const [openBrace, closeBrace, openBracket, closeBracket] = [0x7b, 0x7d, 0x5b, 0x5d];
const numberPattern = /-?(?:0|[1-9]\d*)(?:\.\d+)?(?:[eE][+-]?\d+)?/y;
const plainStringPattern = /[^"\\\u0000-\u001f]*/y;
const hexPattern = /[0-9a-fA-F]{4}/y;
const pairPattern = /\\u[dD][89abAB][0-9a-fA-F]{2}\\u[dD][c-fC-F][0-9a-fA-F]{2}/y;
/** A surrogate pair, which is not taken apart. */
const longestEscape = 12;

/** An object or a list of which more is to come. */
type Open = { readonly entries: [string, Json][]; key: string } | { readonly items: Json[] };

/** What is to come: "first" behind a bracket that has opened, "next" behind a value, "string" in the middle of one. */
type Place = "value" | "first" | "key" | "string" | "colon" | "next" | "end";

/**
 * Reads a text piece by piece: a long one neither holds up what runs beside it nor has to be there as a whole, and is refused as soon
 * as it is wrong. What a long string came in is joined when it is first looked into, by the language.
 */
export class JsonReader {
  readonly #limits: Required<JsonLimits>;
  readonly #repairsStrings: boolean;
  readonly #open: Open[] = [];
  #place: Place = "value";
  /** The piece that is read, from `#at` on; `#before` characters were before it. */
  #text = "";
  #at = 0;
  #before = 0;
  #isLast = false;
  /** The string that is read, up to here, and whether it is a key. */
  #string = "";
  #isKey = false;
  #values = 0;
  #parts = 0;
  #value: Json | undefined;

  /** `repairsStrings`: half a surrogate pair, which only escapes can spell, becomes U+FFFD. */
  constructor(
    { maxDepth = 256, maxValues = Number.POSITIVE_INFINITY, maxParts = Number.POSITIVE_INFINITY }: JsonLimits = {},
    { repairsStrings = false } = {},
  ) {
    this.#limits = { maxDepth, maxValues, maxParts };
    this.#repairsStrings = repairsStrings;
    this.#awaitValue();
  }

  /** What the text says; when `advance` was true of its last piece. */
  get value(): Json {
    return this.#value!;
  }

  /** The next piece, when `advance` was true of the one before. No piece ends within a surrogate pair. */
  give(piece: string, isLast: boolean): void {
    this.#before += this.#at;
    this.#text = this.#text.slice(this.#at) + piece;
    this.#at = 0;
    this.#isLast = isLast;
  }

  /** Goes on for so many values; true when the piece is read. Throws a FormatError (code "json") that names the place. */
  advance(values = Number.POSITIVE_INFINITY): boolean {
    for (let left = values; ; ) {
      if (this.#place !== "string") this.#skipSpace();
      if (this.#at === this.#text.length && (!this.#isLast || this.#place === "end")) return true;
      if (this.#place === "value" && left-- <= 0) return false;
      if (!this.#step()) return true;
    }
  }

  /** Reads what is to come; false when the rest of it comes with the next piece. */
  #step(): boolean {
    const code = this.#text.charCodeAt(this.#at);
    switch (this.#place) {
      case "value":
        return this.#begin(code);
      case "first":
        this.#first(code);
        return true;
      case "key":
        this.#key(code);
        return true;
      case "string":
        return this.#goOn();
      case "colon":
        if (code !== colon) this.#fail('":" is expected');
        this.#at++;
        this.#awaitValue();
        return true;
      case "next":
        this.#next(code);
        return true;
      case "end":
        return this.#fail("there is more text after the value");
      default:
        return this.#place satisfies never;
    }
  }

  #awaitValue(): void {
    if (this.#open.length > this.#limits.maxDepth) this.#fail(`nesting is deeper than ${this.#limits.maxDepth}`);
    if (++this.#values > this.#limits.maxValues) this.#tooMany(this.#limits.maxValues, "values");
    this.#place = "value";
  }

  #begin(code: number): boolean {
    switch (code) {
      case openBrace:
        this.#enter({ entries: [], key: "" });
        return true;
      case openBracket:
        this.#enter({ items: [] });
        return true;
      case quote:
        this.#enterString(false);
        return true;
      case 0x74: // t
        return this.#word("true", true);
      case 0x66: // f
        return this.#word("false", false);
      case 0x6e: // n
        return this.#word("null", null);
      default:
        return this.#number();
    }
  }

  #enter(open: Open): void {
    this.#countPart();
    this.#at++;
    this.#open.push(open);
    this.#place = "first";
  }

  #first(code: number): void {
    const isList = "items" in this.#open.at(-1)!;
    if (code === (isList ? closeBracket : closeBrace)) this.#leave();
    else if (isList) this.#awaitValue();
    else this.#place = "key";
  }

  #next(code: number): void {
    const isList = "items" in this.#open.at(-1)!;
    if (code === (isList ? closeBracket : closeBrace)) this.#leave();
    else if (code === comma) {
      this.#at++;
      if (isList) this.#awaitValue();
      else this.#place = "key";
    } else this.#fail(`"," or "${isList ? "]" : "}"}" is expected`);
  }

  #leave(): void {
    this.#at++;
    const open = this.#open.pop()!;
    this.#put("items" in open ? open.items : new JsonObject(open.entries));
  }

  /** Puts a value where it belongs. */
  #put(value: Json): void {
    const open = this.#open.at(-1);
    this.#place = "next";
    if (open === undefined) {
      this.#value = value;
      this.#place = "end";
    } else if ("items" in open) open.items.push(value);
    else open.entries.push([open.key, value]);
  }

  #countPart(): void {
    if (++this.#parts > this.#limits.maxParts) this.#tooMany(this.#limits.maxParts, "objects, lists and keys");
  }

  #key(code: number): void {
    if (code !== quote) this.#fail("a key in double quotes is expected");
    this.#countPart();
    this.#enterString(true);
  }

  #enterString(isKey: boolean): void {
    this.#at++;
    this.#isKey = isKey;
    this.#place = "string";
  }

  #goOn(): boolean {
    const start = this.#at;
    plainStringPattern.lastIndex = start;
    // `test` makes no array of what it found.
    plainStringPattern.test(this.#text);
    this.#at = plainStringPattern.lastIndex;
    const isPlain = this.#at === this.#text.length || this.#text.charCodeAt(this.#at) === quote;
    if (!isPlain) this.#skipEscapes();
    const isWhole = this.#text.charCodeAt(this.#at) === quote;
    if (!isWhole && this.#isLast) this.#fail("a string has no end");
    const written = this.#text.slice(start, this.#at);
    const part = isPlain ? written : this.#unescape(written);
    this.#string = this.#string === "" ? part : this.#string + part;
    if (isWhole) this.#endString();
    return isWhole;
  }

  #endString(): void {
    this.#at++;
    const string = this.#string;
    this.#string = "";
    if (!this.#isKey) this.#put(string);
    else {
      (this.#open.at(-1) as { key: string }).key = string; // of an object: lists have no keys
      this.#place = "colon";
    }
  }

  /** Checked: the language's own reader takes megabytes of escapes in no time. */
  #unescape(written: string): string {
    const text = JSON.parse(`"${written}"`) as string;
    return this.#repairsStrings ? text.toWellFormed() : text;
  }

  /** From the first escape of a string to its end, or to an escape of which not all is there. */
  #skipEscapes(): void {
    const whole = this.#isLast ? Number.POSITIVE_INFINITY : this.#text.length - longestEscape;
    for (;;) {
      const code = this.#text.charCodeAt(this.#at);
      if (code === backslash) {
        if (this.#at > whole) return;
        this.#at += this.#escapeLength();
      } else if (code === quote || (Number.isNaN(code) && !this.#isLast)) return;
      else if (code >= 0x20) this.#at++;
      else this.#fail(Number.isNaN(code) ? "a string has no end" : "a control character stands in a string");
    }
  }

  #escapeLength(): number {
    const kind = this.#text[this.#at + 1] ?? "";
    if (kind === "u") {
      hexPattern.lastIndex = this.#at + 2;
      if (!hexPattern.test(this.#text)) this.#fail("\\u is not followed by four hexadecimal digits");
      return this.#isPair() ? longestEscape : 6;
    }
    if (kind === "" || !'"\\/bfnrt'.includes(kind)) this.#fail(`"\\${kind}" is no escape`);
    return 2;
  }

  #isPair(): boolean {
    pairPattern.lastIndex = this.#at;
    return pairPattern.test(this.#text);
  }

  #number(): boolean {
    const start = this.#at;
    numberPattern.lastIndex = start;
    const end = numberPattern.test(this.#text) ? numberPattern.lastIndex : start;
    if (end - start > maxNumberLength) this.#fail(`a number is longer than ${maxNumberLength} characters`);
    // What follows may belong to it: digits, or a sign or a point with digits behind.
    if (!this.#isLast && this.#text.length - end <= 2) return false;
    if (end === start) this.#fail(start < this.#text.length ? "a value is expected" : "the text ends too early");
    this.#at = end;
    this.#put(new JsonNumber(this.#text.slice(start, end)));
    return true;
  }

  #word(word: string, value: boolean | null): boolean {
    if (!this.#text.startsWith(word, this.#at)) {
      if (!this.#isLast && word.startsWith(this.#text.slice(this.#at))) return false;
      this.#fail("a value is expected");
    }
    this.#at += word.length;
    this.#put(value);
    return true;
  }

  #skipSpace(): void {
    while (isSpace(this.#text.charCodeAt(this.#at))) this.#at++;
  }

  #tooMany(most: number, what: string): never {
    this.#fail(`there are more than ${most} ${what}`);
  }

  #fail(what: string): never {
    throw new FormatError(`Not JSON: ${what} at character ${this.#before + this.#at}`, { code: "json" });
  }
}

function isSpace(code: number): boolean {
  return code === 0x20 || code === 0x0a || code === 0x0d || code === 0x09;
}
