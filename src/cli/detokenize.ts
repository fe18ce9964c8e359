/** freehold detokenize: token ids to text. */
import type { Command } from "commander";
import { openTokenizer } from "../engine/load-model.ts";
import { RequestError, UsageError } from "../errors.ts";
import { printResults } from "./batch.ts";
import { isIdList, parseIds, readJsonFile, readStdin } from "./input.ts";
import { command, type OutputOptions, terminalOf, withTokenizerOption } from "./model-options.ts";

interface DetokenizeOptions extends OutputOptions {
  readonly model?: string;
  readonly special?: boolean;
  readonly file?: string;
}

export function addDetokenize(program: Command): void {
  const examples = ["freehold detokenize 908,3,367", "freehold detokenize --file ids.json --json"];
  withTokenizerOption(command(program, "detokenize [ids]", "Token ids (or stdin) to text", examples))
    .option("--file <file>", "a JSON list of ids, or a list of such lists")
    .action(detokenize);
}

async function detokenize(ids: string | undefined, options: DetokenizeOptions): Promise<void> {
  const terminal = terminalOf(options);
  const { tokenizer } = await openTokenizer(options.model);
  const items =
    options.file === undefined ? parseIds(ids ?? (await readStdin()), "IDS") : await readJsonFile(options.file);
  if (!Array.isArray(items))
    throw new UsageError("The file holds no list of token ids", { where: options.file ?? "IDS" });
  const isList = !isIdList(items);
  const work = (item: unknown) => {
    if (!isIdList(item))
      throw new RequestError("An item is no list of token ids", { code: "request", hint: "Give lists like [1, 2, 3]" });
    return { text: tokenizer.decode(item) };
  };
  await printResults<unknown>(items, isList, terminal, work, ({ text }: { text: string }) => text);
}
