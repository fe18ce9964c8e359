/** freehold render: messages to the exact prompt that the model sees. */
import type { Command } from "commander";
import { parseChatRequest } from "../chat/chat-request.ts";
import { encodePrompt } from "../chat/prompt.ts";
import { renderFillInMiddle, renderPrompt } from "../chat/render-prompt.ts";
import { openTokenizer } from "../engine/load-model.ts";
import { RequestError } from "../errors.ts";
import { type Json, JsonObject, parseJson } from "../json/parse-json.ts";
import { printResults } from "./batch.ts";
import { readTextFile, withoutByteOrderMark } from "./input.ts";
import { command, type OutputOptions, terminalOf, withTokenizerOption } from "./model-options.ts";

export function addRender(program: Command): void {
  const examples = ["freehold render messages.json", "freehold render --json - < messages.json"];
  withTokenizerOption(command(program, "render <file>", "Messages (JSON) to the exact prompt", examples)).action(
    render,
  );
}

async function render(file: string, options: OutputOptions & { readonly model?: string }): Promise<void> {
  const terminal = terminalOf(options);
  const { tokenizer, dialect } = await openTokenizer(options.model);
  const items = parseItems(await readTextFile(file), file);
  const work = (item: Json) => {
    const gap = gapOf(item);
    const prompt = gap === undefined ? renderPrompt(parseChatRequest(item), dialect) : renderFillInMiddle(...gap);
    return { prompt: prompt.text, token_ids: encodePrompt(prompt, tokenizer) };
  };
  await printResults(items, Array.isArray(items), terminal, work, ({ prompt }: { prompt: string }) => prompt);
}

/** Prefix and suffix of an item that is a gap to fill: `{"prefix", "suffix"}`. */
function gapOf(item: Json): [string, string] | undefined {
  if (!(item instanceof JsonObject) || item.get("messages") !== undefined) return undefined;
  const [prefix, suffix] = [item.get("prefix"), item.get("suffix")];
  return typeof prefix === "string" && typeof suffix === "string" ? [prefix, suffix] : undefined;
}

/** With nothing lost: 1.0 in a schema stays 1.0 in the prompt. */
function parseItems(text: string, where: string): Json {
  try {
    return parseJson(withoutByteOrderMark(text));
  } catch (error) {
    throw new RequestError((error as Error).message, { code: "json", where, cause: error });
  }
}
