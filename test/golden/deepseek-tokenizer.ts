/** The real tokenizer.json of DeepSeek V4, and that of V4.1 made from it by the recorded changes. */
import { readFileSync } from "node:fs";
import { join } from "node:path";
import { gunzipSync } from "node:zlib";
import { Tokenizer } from "../../src/tokenizer/tokenizer.ts";

const data = join(import.meta.dirname, "../data");
const loaded = new Map<string, Tokenizer>();

export function readGzippedText(file: string): string {
  return gunzipSync(readFileSync(join(data, file))).toString("utf8");
}

export function readGzippedJson(file: string): unknown {
  return JSON.parse(readGzippedText(file));
}

export function deepseekTokenizer(version: "v4" | "v4.1"): Tokenizer {
  const known = loaded.get(version) ?? Tokenizer.fromJson(JSON.parse(deepseekTokenizerText(version)));
  loaded.set(version, known);
  return known;
}

export function deepseekTokenizerText(version: "v4" | "v4.1"): string {
  const text = readGzippedText("tokenizer/deepseek-v4-tokenizer.json.gz");
  if (version === "v4") return text;
  const delta = JSON.parse(readFileSync(join(data, "tokenizer/v41-delta.json"), "utf8")) as {
    tokens: { id: number; v4: string; v41: string }[];
  };
  // On the text, so that the result is the published file byte for byte.
  const renamed = delta.tokens.reduce(
    (file, { v4, v41 }) => file.replace(`"content": "${v4}"`, `"content": "${v41}"`),
    text,
  );
  const [before, after] = splitAt(renamed, renamed.indexOf('"id": 128799,'));
  const system = after
    .replace('"normalized": false', '"normalized": true')
    .replace('"special": true', '"special": false');
  return `${before}${system}\n`;
}

function splitAt(text: string, at: number): [string, string] {
  return [text.slice(0, at), text.slice(at)];
}
