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
  const reader = new JsonReader(text, limits);
  reader.advance();
  return reader.value;
}

/**
 * Counts before anything is built: values cost a hundred times what their text costs to look at, and a text that is refused should
 * cost next to nothing. A text that is no JSON may be counted wrongly, and is refused by the reader.
 */
function refuseTooMany(text: string, { maxValues, maxParts }: Required<JsonLimits>): void {
  if (text.length <= Math.min(maxValues, maxParts)) return;
  let [values, parts] = [1, 0];
  for (let at = 0; at < text.length; at++) {
    const code = text.charCodeAt(at);
    if (code === quote) at = endOfString(text, at);
    else if (code === comma) values++;
    else if (code === brace || code === bracket) {
      parts++;
      if (!isEmpty(text, at)) values++;
    } else if (code === colon) parts++;
    if (values > maxValues) throw tooMany(maxValues, "values", at);
    if (parts > maxParts) throw tooMany(maxParts, "objects, lists and keys", at);
  }
}

const [quote, comma, colon, brace, bracket, backslash] = [0x22, 0x2c, 0x3a, 0x7b, 0x5b, 0x5c];

function endOfString(text: string, start: number): number {
  for (let end = text.indexOf('"', start + 1); end >= 0; end = text.indexOf('"', end + 1)) {
    let first = end;
    while (text.charCodeAt(first - 1) === backslash) first--;
    if ((end - first) % 2 === 0) return end;
  }
  return text.length;
}

function isEmpty(text: string, start: number): boolean {
  let at = start + 1;
  while (isSpace(text.charCodeAt(at))) at++;
  return text[at] === "]" || text[at] === "}";
}

function isSpace(code: number): boolean {
  return code === 0x20 || code === 0x0a || code === 0x0d || code === 0x09;
}

function tooMany(most: number, what: string, at: number): FormatError {
  return new FormatError(`Not JSON: there are more than ${most} ${what} at character ${at}`, { code: "json" });
}

const numberPattern = /-?(?:0|[1-9]\d*)(?:\.\d+)?(?:[eE][+-]?\d+)?/y;
const plainStringPattern = /[^"\\\u0000-\u001f]*/y;

/** An object or a list of which more is to come. */
type Open = { readonly entries: [string, Json][]; key: string } | { readonly items: Json[] };

/** Reads a text piece by piece, so that a long one does not hold up what runs beside it. */
export class JsonReader {
  readonly #text: string;
  readonly #limits: Required<JsonLimits>;
  readonly #open: Open[] = [];
  #values = 0;
  #parts = 0;
  #at = 0;
  #value: Json | undefined;

  /** Throws a FormatError when there are too many values. */
  constructor(
    text: string,
    { maxDepth = 256, maxValues = Number.POSITIVE_INFINITY, maxParts = Number.POSITIVE_INFINITY }: JsonLimits = {},
  ) {
    this.#text = text;
    this.#limits = { maxDepth, maxValues, maxParts };
    refuseTooMany(text, this.#limits);
  }

  /** What the text says; after `advance` was true. */
  get value(): Json {
    return this.#value!;
  }

  /** Goes on for so many values; true when the text is read. Throws a FormatError (code "json") that names the place. */
  advance(values = Number.POSITIVE_INFINITY): boolean {
    for (let left = values; this.#value === undefined; left--) {
      if (left <= 0) return false;
      const value = this.#begin();
      if (value !== undefined) this.#put(value);
    }
    return true;
  }

  /** The next value, or undefined for a container that has just opened. */
  #begin(): Json | undefined {
    if (this.#open.length > this.#limits.maxDepth) this.#fail(`nesting is deeper than ${this.#limits.maxDepth}`);
    if (++this.#values > this.#limits.maxValues) throw tooMany(this.#limits.maxValues, "values", this.#at);
    this.#skipSpace();
    switch (this.#text[this.#at]) {
      case "{":
        this.#countPart();
        this.#at++;
        if (this.#takes("}")) return new JsonObject([]);
        this.#open.push({ entries: [], key: this.#key() });
        return undefined;
      case "[":
        this.#countPart();
        this.#at++;
        if (this.#takes("]")) return [];
        this.#open.push({ items: [] });
        return undefined;
      case '"':
        return this.#string();
      case "t":
        return this.#word("true", true);
      case "f":
        return this.#word("false", false);
      case "n":
        return this.#word("null", null);
      default:
        return this.#number();
    }
  }

  #countPart(): void {
    const { maxParts } = this.#limits;
    if (++this.#parts > maxParts) throw tooMany(maxParts, "objects, lists and keys", this.#at);
  }

  /** Puts a value where it belongs, and closes what it completes. */
  #put(found: Json): void {
    let value = found;
    for (let open = this.#open.at(-1); open !== undefined; open = this.#open.at(-1)) {
      if ("items" in open) {
        open.items.push(value);
        if (this.#takes(",")) return;
        if (!this.#takes("]")) this.#fail('"," or "]" is expected');
        value = open.items;
      } else {
        open.entries.push([open.key, value]);
        if (this.#takes(",")) {
          open.key = this.#key();
          return;
        }
        if (!this.#takes("}")) this.#fail('"," or "}" is expected');
        value = new JsonObject(open.entries);
      }
      this.#open.pop();
    }
    this.#skipSpace();
    if (this.#at < this.#text.length) this.#fail("there is more text after the value");
    this.#value = value;
  }

  #key(): string {
    this.#skipSpace();
    if (this.#text[this.#at] !== '"') this.#fail("a key in double quotes is expected");
    this.#countPart();
    const key = this.#string();
    if (!this.#takes(":")) this.#fail('":" is expected');
    return key;
  }

  #string(): string {
    const start = this.#at;
    plainStringPattern.lastIndex = start + 1;
    // `test` makes no array of what it found.
    plainStringPattern.test(this.#text);
    this.#at = plainStringPattern.lastIndex;
    if (this.#text.charCodeAt(this.#at) === quote) return this.#text.slice(start + 1, this.#at++);
    this.#skipEscapes();
    // Checked: the language's own reader takes megabytes of escapes in no time.
    return JSON.parse(this.#text.slice(start, this.#at)) as string;
  }

  /** From the first escape of a string to behind its end. */
  #skipEscapes(): void {
    for (;;) {
      const code = this.#text.charCodeAt(this.#at);
      if (code === backslash) this.#at += this.#escapeLength();
      else if (code === quote) break;
      else if (code >= 0x20) this.#at++;
      else this.#fail(Number.isNaN(code) ? "a string has no end" : "a control character stands in a string");
    }
    this.#at++;
  }

  #escapeLength(): number {
    const kind = this.#text[this.#at + 1] ?? "";
    if (kind === "u") {
      if (/^[0-9a-fA-F]{4}$/.test(this.#text.slice(this.#at + 2, this.#at + 6))) return 6;
      this.#fail("\\u is not followed by four hexadecimal digits");
    }
    if (kind === "" || !'"\\/bfnrt'.includes(kind)) this.#fail(`"\\${kind}" is no escape`);
    return 2;
  }

  #number(): JsonNumber {
    const start = this.#at;
    numberPattern.lastIndex = start;
    if (!numberPattern.test(this.#text))
      this.#fail(start < this.#text.length ? "a value is expected" : "the text ends too early");
    this.#at = numberPattern.lastIndex;
    return new JsonNumber(this.#text.slice(start, this.#at));
  }

  #word<T extends boolean | null>(word: string, value: T): T {
    if (!this.#text.startsWith(word, this.#at)) this.#fail("a value is expected");
    this.#at += word.length;
    return value;
  }

  #takes(mark: string): boolean {
    this.#skipSpace();
    if (this.#text[this.#at] !== mark) return false;
    this.#at++;
    return true;
  }

  #skipSpace(): void {
    while (isSpace(this.#text.charCodeAt(this.#at))) this.#at++;
  }

  #fail(what: string): never {
    throw new FormatError(`Not JSON: ${what} at character ${this.#at}`, { code: "json" });
  }
}
