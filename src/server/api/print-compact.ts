/** Json as text without blanks; numbers and key order as they came. */
import { type Json, JsonNumber, JsonObject } from "../../json/parse-json.ts";

export function printCompact(value: Json): string {
  if (value instanceof JsonNumber) return value.text;
  if (value instanceof JsonObject) {
    return `{${value.entries.map(([key, item]) => `${JSON.stringify(key)}:${printCompact(item)}`).join(",")}}`;
  }
  if (Array.isArray(value)) return `[${(value as readonly Json[]).map(printCompact).join(",")}]`;
  return JSON.stringify(value);
}
