/** Completing the arguments of a call whose output was cut: what is open is closed, and nothing already sent changes. */
import { isJson } from "../../json/is-json.ts";

/**
 * The text that makes a valid JSON object of `streamed + rest + result`. `rest` was not sent yet: where no ending makes JSON
 * of it, it becomes a string. `streamed` is what ToolCallParser gives out, which holds whole values but perhaps for a last string.
 */
export function closeArguments(streamed: string, rest: string): string {
  if (streamed + rest === "") return "{}";
  const closed = rest + jsonEnding(streamed + rest);
  if (isJson(streamed + closed)) return closed;
  const asText = JSON.stringify(rest);
  return asText + jsonEnding(streamed + asText);
}

const openValue = /[:,[]\s*$/;

/** What closes the strings, words, numbers, lists and objects that are open at the end of a text. */
function jsonEnding(text: string): string {
  const closers: string[] = [];
  let isString = false;
  for (let i = 0; i < text.length; i++) {
    const char = text[i]!;
    if (isString) {
      if (char === "\\") i++;
      else if (char === '"') isString = false;
    } else if (char === '"') isString = true;
    else if (char === "{") closers.push("}");
    else if (char === "[") closers.push("]");
    else if (char === "}" || char === "]") closers.pop();
  }
  const ending = isString ? stringEnding(text) : valueEnding(text);
  return missingMember(text + ending, closers.at(-1))
    ? `${ending}: null${closers.reverse().join("")}`
    : ending + closers.reverse().join("");
}

function stringEnding(text: string): string {
  const cut = /\\(u[0-9a-fA-F]{0,3})?$/.exec(text);
  const backslashes = /\\*$/.exec(text)![0].length;
  if (cut?.[1] !== undefined && isEscape(text, cut.index)) return `${"0".repeat(5 - cut[1].length)}"`;
  return backslashes % 2 === 1 ? '\\"' : '"';
}

/** Whether the backslash at `at` begins an escape, and is not itself escaped. */
function isEscape(text: string, at: number): boolean {
  let before = at;
  while (before > 0 && text[before - 1] === "\\") before--;
  return (at - before) % 2 === 0;
}

function valueEnding(text: string): string {
  const [word] = /[a-z]*$/.exec(text)!;
  const whole = word === "" ? undefined : ["true", "false", "null"].find((name) => name.startsWith(word));
  if (whole !== undefined) return whole.slice(word.length);
  if (/[\d.](?:\.|[eE][+-]?)$|-$|\d\.$|\d[eE][+-]?$/.test(text)) return "0";
  return openValue.test(text) ? "null" : "";
}

/** Whether an object ends in a key without a value. */
function missingMember(text: string, closer: string | undefined): boolean {
  return closer === "}" && /[{,]\s*"(?:[^"\\]|\\.)*"$/s.test(text);
}
