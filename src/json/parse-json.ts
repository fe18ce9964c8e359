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

/** Throws a FormatError (code "json") that names the place. `maxValues` counts every value, nested ones too. */
export function parseJson(text: string, maxDepth = 256, maxValues = Number.POSITIVE_INFINITY): Json {
  refuseTooMany(text, maxValues);
  const scanner = new Scanner(text, maxDepth, maxValues);
  const value = scanner.value(0);
  scanner.end();
  return value;
}

/**
 * Counts before anything is built: values cost a hundred times what their text costs to look at, and a text that is refused should
 * cost next to nothing. A text that is no JSON may be counted wrongly, and is refused by the scanner.
 */
function refuseTooMany(text: string, maxValues: number): void {
  if (text.length <= maxValues) return;
  let values = 1;
  for (let at = 0; at < text.length; at++) {
    const code = text.charCodeAt(at);
    if (code === quote) at = endOfString(text, at);
    else if (code === comma || ((code === brace || code === bracket) && !isEmpty(text, at))) values++;
    if (values > maxValues) throw tooMany(maxValues, at);
  }
}

const [quote, comma, brace, bracket, backslash] = [0x22, 0x2c, 0x7b, 0x5b, 0x5c];

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

function tooMany(maxValues: number, at: number): FormatError {
  return new FormatError(`Not JSON: there are more than ${maxValues} values at character ${at}`, { code: "json" });
}

const escapes: Readonly<Record<string, string>> = {
  '"': '"',
  "\\": "\\",
  "/": "/",
  b: "\b",
  f: "\f",
  n: "\n",
  r: "\r",
  t: "\t",
};

const numberPattern = /-?(?:0|[1-9]\d*)(?:\.\d+)?(?:[eE][+-]?\d+)?/y;
const plainStringPattern = /[^"\\\u0000-\u001f]*/y;

class Scanner {
  readonly #text: string;
  readonly #maxDepth: number;
  readonly #maxValues: number;
  #values = 0;
  #at = 0;

  constructor(text: string, maxDepth: number, maxValues: number) {
    this.#text = text;
    this.#maxDepth = maxDepth;
    this.#maxValues = maxValues;
  }

  value(depth: number): Json {
    if (depth > this.#maxDepth) this.#fail(`nesting is deeper than ${this.#maxDepth}`);
    if (++this.#values > this.#maxValues) throw tooMany(this.#maxValues, this.#at);
    this.#skipSpace();
    const first = this.#text[this.#at];
    switch (first) {
      case "{":
        return this.#object(depth);
      case "[":
        return this.#array(depth);
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

  end(): void {
    this.#skipSpace();
    if (this.#at < this.#text.length) this.#fail("there is more text after the value");
  }

  #object(depth: number): JsonObject {
    const entries: [string, Json][] = [];
    this.#at++;
    if (this.#takes("}")) return new JsonObject(entries);
    do {
      this.#skipSpace();
      if (this.#text[this.#at] !== '"') this.#fail("a key in double quotes is expected");
      const key = this.#string();
      if (!this.#takes(":")) this.#fail('":" is expected');
      entries.push([key, this.value(depth + 1)]);
    } while (this.#takes(","));
    if (!this.#takes("}")) this.#fail('"," or "}" is expected');
    return new JsonObject(entries);
  }

  #array(depth: number): Json[] {
    const values: Json[] = [];
    this.#at++;
    if (this.#takes("]")) return values;
    do values.push(this.value(depth + 1));
    while (this.#takes(","));
    if (!this.#takes("]")) this.#fail('"," or "]" is expected');
    return values;
  }

  #string(): string {
    const parts: string[] = [];
    this.#at++;
    for (;;) {
      plainStringPattern.lastIndex = this.#at;
      // `test` makes no array of what it found.
      plainStringPattern.test(this.#text);
      const plain = this.#text.slice(this.#at, plainStringPattern.lastIndex);
      parts.push(plain);
      this.#at = plainStringPattern.lastIndex;
      const next = this.#text[this.#at];
      if (next === '"') {
        this.#at++;
        return parts.length === 1 ? plain : parts.join("");
      }
      if (next !== "\\")
        this.#fail(next === undefined ? "a string has no end" : "a control character stands in a string");
      parts.push(this.#escape());
    }
  }

  #escape(): string {
    const kind = this.#text[this.#at + 1] ?? "";
    if (kind === "u") {
      const digits = this.#text.slice(this.#at + 2, this.#at + 6);
      if (!/^[0-9a-fA-F]{4}$/.test(digits)) this.#fail("\\u is not followed by four hexadecimal digits");
      this.#at += 6;
      return String.fromCharCode(Number.parseInt(digits, 16));
    }
    if (!Object.hasOwn(escapes, kind)) this.#fail(`"\\${kind}" is no escape`);
    this.#at += 2;
    return escapes[kind]!;
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
