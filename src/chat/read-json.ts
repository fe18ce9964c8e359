/** Reading requests: values that are JSON with nothing lost, taken apart with errors that name the place. */
import { quoted, RequestError } from "../errors.ts";
import { type Json, JsonNumber, JsonObject } from "../json/parse-json.ts";

const maxDepth = 256;

/** A plain JavaScript value (as JSON.parse or a program makes it) as Json; a Json value stays as it is. */
export function toJson(value: unknown, where: string, depth = 0): Json {
  if (depth > maxDepth) throw new RequestError(`${where} is nested deeper than ${maxDepth}`, { code: "depth", where });
  if (value === null || typeof value === "boolean" || typeof value === "string") return value;
  if (value instanceof JsonNumber || value instanceof JsonObject) return value;
  if (typeof value === "number" && Number.isFinite(value))
    return new JsonNumber(Object.is(value, -0) ? "-0" : String(value));
  if (typeof value === "bigint") return new JsonNumber(String(value));
  if (Array.isArray(value)) return value.map((item, i) => toJson(item, `${where}[${i}]`, depth + 1));
  if (typeof value === "object") {
    const entries = Object.entries(value).filter(([, item]) => item !== undefined);
    return new JsonObject(entries.map(([key, item]) => [key, toJson(item, `${where}.${key}`, depth + 1)]));
  }
  throw new RequestError(`${where} is a ${typeof value}, which JSON cannot hold`, { code: "json", where });
}

/** Json as a plain value; numbers become doubles. */
export function fromJson(value: Json): unknown {
  if (value instanceof JsonNumber) return value.value;
  if (value instanceof JsonObject) return Object.fromEntries(value.entries.map(([key, item]) => [key, fromJson(item)]));
  return Array.isArray(value) ? value.map(fromJson) : value;
}

/** Fields of an object with typed access; `undefined` and null count as absent. */
export class Fields {
  readonly where: string;
  readonly #object: JsonObject;

  constructor(value: Json, where: string) {
    if (!(value instanceof JsonObject)) throw wrong(where, value, "an object");
    this.where = where;
    this.#object = value;
  }

  /** The value as it stands, null included. */
  raw(key: string): Json | undefined {
    return this.#object.get(key);
  }

  get(key: string): Json | undefined {
    return this.raw(key) ?? undefined;
  }

  string(key: string): string | undefined {
    const value = this.get(key);
    if (value === undefined || typeof value === "string") return value;
    throw wrong(this.path(key), value, "a string");
  }

  boolean(key: string): boolean | undefined {
    const value = this.get(key);
    if (value === undefined || typeof value === "boolean") return value;
    throw wrong(this.path(key), value, "true or false");
  }

  list(key: string): readonly Json[] | undefined {
    const value = this.get(key);
    if (value === undefined) return undefined;
    if (!Array.isArray(value)) throw wrong(this.path(key), value, "a list");
    return value as readonly Json[];
  }

  fields(key: string): Fields | undefined {
    const value = this.get(key);
    return value === undefined ? undefined : new Fields(value, this.path(key));
  }

  required<T>(key: string, value: T | undefined): T {
    if (value === undefined)
      throw new RequestError(`${this.path(key)} is missing`, { code: "request", where: this.path(key) });
    return value;
  }

  path(key: string): string {
    return this.where === "" ? key : `${this.where}.${key}`;
  }
}

export function wrong(where: string, value: Json, expected: string): RequestError {
  const found =
    value === null
      ? "null"
      : value instanceof JsonNumber
        ? value.text.slice(0, 40)
        : typeof value === "object"
          ? Array.isArray(value)
            ? "a list"
            : "an object"
          : typeof value === "string"
            ? quoted(value)
            : String(value);
  return new RequestError(`${where} is ${found}, not ${expected}`, { code: "request", where });
}
