/**
 * JSON as the prompts have it: `, ` and `: ` between parts, keys in their order, characters beyond ASCII as they are, integers
 * of 64 bits exact, other numbers as doubles that always show a point or an exponent.
 */
import { RequestError } from "../errors.ts";
import { type Json, JsonNumber, JsonObject } from "../json/parse-json.ts";
import type { Dialect } from "./dialect.ts";

/** Throws a RequestError for a number that no double can hold. */
export function printJson(value: Json, dialect: Dialect): string {
  if (value === null || typeof value === "boolean") return String(value);
  if (typeof value === "string") return printString(value);
  if (value instanceof JsonNumber) return printNumber(value, dialect);
  if (value instanceof JsonObject) {
    const parts = withoutDuplicates(value).map(([key, item]) => `${printString(key)}: ${printJson(item, dialect)}`);
    return `{${parts.join(", ")}}`;
  }
  return `[${value.map((item) => printJson(item, dialect)).join(", ")}]`;
}

/** Of equal keys the place of the first and the value of the last. */
export function withoutDuplicates(object: JsonObject): [string, Json][] {
  return [...new Map(object.entries)];
}

const shortEscapes: Readonly<Record<string, string>> = {
  '"': '\\"',
  "\\": "\\\\",
  "\n": "\\n",
  "\r": "\\r",
  "\t": "\\t",
  "\b": "\\b",
  "\f": "\\f",
};

function printString(text: string): string {
  const escaped = text.replace(
    /["\\\u0000-\u001f]/g,
    (char) => shortEscapes[char] ?? `\\u${char.charCodeAt(0).toString(16).padStart(4, "0")}`,
  );
  return `"${escaped}"`;
}

const smallestInteger = -(2n ** 63n);
const largestInteger = 2n ** 64n - 1n;

function printNumber(number: JsonNumber, dialect: Dialect): string {
  if (/^-?\d+$/.test(number.text) && number.text !== "-0" && number.text.length <= 20) {
    const integer = BigInt(number.text);
    if (integer >= smallestInteger && integer <= largestInteger) return String(integer);
  }
  return printDouble(number.value, dialect);
}

function printDouble(x: number, { smallestPlainNumber, padsExponent }: Dialect): string {
  if (!Number.isFinite(x)) throw new RequestError("A number in the JSON is too large for a double", { code: "number" });
  const size = Math.abs(x);
  const sign = x < 0 || Object.is(x, -0) ? "-" : "";
  if (size === 0) return `${sign}0.0`;
  // toExponential() without an argument gives the shortest digits that read back as the same double.
  const [mantissa, exponentText] = size.toExponential().split("e") as [string, string];
  const exponent = Number(exponentText);
  const digits = mantissa.replace(".", "");
  if (size < smallestPlainNumber || size >= 1e16) {
    const shown = String(Math.abs(exponent)).padStart(padsExponent ? 2 : 1, "0");
    return `${sign}${mantissa}e${exponent < 0 ? "-" : "+"}${shown}`;
  }
  if (exponent < 0) return `${sign}0.${"0".repeat(-exponent - 1)}${digits}`;
  const whole = digits.slice(0, exponent + 1).padEnd(exponent + 1, "0");
  return `${sign}${whole}.${digits.slice(exponent + 1) || "0"}`;
}
