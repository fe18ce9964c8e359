/** freehold tokenize: text to token ids. */
import type { Command } from "commander";
import { openTokenizer } from "../engine/load-model.ts";
import { RequestError } from "../errors.ts";
import { printResults } from "./batch.ts";
import { readJsonFile, readStdin } from "./input.ts";
import { command, type OutputOptions, terminalOf, withTokenizerOption } from "./model-options.ts";

interface TokenizeOptions extends OutputOptions {
  readonly model?: string;
  readonly special?: boolean;
  readonly file?: string;
}

export function addTokenize(program: Command): void {
  const examples = ['freehold tokenize "Hello world"', "freehold tokenize --special --json < prompt.txt"];
  withTokenizerOption(command(program, "tokenize [text]", "Text (or stdin) to token ids", examples))
    .option("--special", "read spelled special tokens as such")
    .option("--file <file>", 'JSON items {"text", "special"}')
    .action(tokenize);
}

async function tokenize(text: string | undefined, options: TokenizeOptions): Promise<void> {
  const terminal = terminalOf(options);
  const { tokenizer } = await openTokenizer(options.model);
  const items = options.file === undefined ? { text: text ?? (await readStdin()) } : await readJsonFile(options.file);
  const work = (item: unknown) => {
    const { text: itemText, special } = readItem(item);
    return { token_ids: tokenizer.encode(itemText, { special: special ?? options.special ?? false }) };
  };
  await printResults(items, Array.isArray(items), terminal, work, ({ token_ids }: { token_ids: number[] }) =>
    token_ids.join(","),
  );
}

function readItem(item: unknown): { text: string; special: boolean | undefined } {
  if (typeof item === "string") return { text: item, special: undefined };
  const { text, special } = (item ?? {}) as { text?: unknown; special?: unknown };
  if (typeof text === "string" && (special === undefined || typeof special === "boolean")) return { text, special };
  throw new RequestError('An item is not like {"text": "...", "special": false}', { code: "request" });
}
