/** freehold parse: what a model wrote, taken apart into reasoning, content and tool calls. */
import type { Command } from "commander";
import { endOfThinking } from "../chat/markers.ts";
import { type FinishReason, OutputParser, type ParsedMessage, type ParseOptions } from "../chat/output-parser.ts";
import { openTokenizer } from "../engine/load-model.ts";
import { OutputReader } from "../engine/output-reader.ts";
import { RequestError } from "../errors.ts";
import type { Tokenizer } from "../tokenizer/tokenizer.ts";
import { printResults } from "./batch.ts";
import { isIdList, readTextFile, withoutByteOrderMark } from "./input.ts";
import { command, type OutputOptions, terminalOf, withTokenizerOption } from "./model-options.ts";

interface OutputItem {
  readonly text: string | undefined;
  readonly tokenIds: readonly number[] | undefined;
  /** Whether spelled markers in the text count as markers. */
  readonly spelledMarkers: boolean;
  readonly options: ParseOptions;
  readonly finish: FinishReason;
}

export function addParse(program: Command): void {
  const examples = ["freehold parse output.json --json", "freehold parse output.txt"];
  withTokenizerOption(
    command(program, "parse <file>", "Raw model output (text or JSON items) to a message", examples),
  ).action(parse);
}

async function parse(file: string, options: OutputOptions & { readonly model?: string }): Promise<void> {
  const terminal = terminalOf(options);
  const { tokenizer } = await openTokenizer(options.model);
  const items = readItems(await readTextFile(file));
  const work = (item: unknown) => messageJson(parseItem(readItem(item), tokenizer));
  await printResults(items, Array.isArray(items), terminal, work, (result: object) =>
    JSON.stringify(result, undefined, 2),
  );
}

/** JSON items, or the whole file as one output. */
function readItems(text: string): unknown {
  try {
    const value: unknown = JSON.parse(withoutByteOrderMark(text));
    if (typeof value === "object" && value !== null) return value;
  } catch {
    // not JSON: the text itself is the output
  }
  return { text };
}

function readItem(value: unknown): OutputItem {
  const item = (value ?? {}) as Record<string, unknown>;
  const { text, token_ids: tokenIds } = item;
  const isValid = (typeof text === "string" || text === undefined) && (isIdList(tokenIds) || tokenIds === undefined);
  if (typeof value !== "object" || !isValid || (text === undefined && tokenIds === undefined)) {
    throw new RequestError('An item has neither "text" nor "token_ids"', {
      code: "request",
      hint: 'Give {"text": "..."} at least',
    });
  }
  const given = (item.options ?? {}) as Record<string, unknown>;
  const thinks = typeof text === "string" && text.includes(endOfThinking);
  const start = String(given.start ?? (thinks ? "reasoning" : "content")).replace("_continuation", "Continuation");
  if (!isStart(start))
    throw new RequestError(`start is ${JSON.stringify(start)}`, { code: "request", where: "options.start" });
  const stop = given.stop ?? [];
  if (!Array.isArray(stop) || !stop.every((entry) => typeof entry === "string")) {
    throw new RequestError("stop is not a list of texts", { code: "request", where: "options.stop" });
  }
  return {
    text: text as string | undefined,
    tokenIds: tokenIds as readonly number[] | undefined,
    spelledMarkers: item.markers !== "ordinary text",
    options: {
      start,
      toolCalls: given.tool_calls !== false,
      inToolCalls: given.in_tool_calls === true,
      json: given.json === true,
      stop,
    },
    finish: given.finish === "length" || given.finish === "content_filter" ? given.finish : "stop",
  };
}

function isStart(start: string): start is ParseOptions["start"] {
  return ["reasoning", "content", "contentContinuation", "reasoningContinuation"].includes(start);
}

/** By token ids where they are this tokenizer's, so that only true marker tokens count; otherwise by the text. */
function parseItem(
  { text, tokenIds, spelledMarkers, options, finish }: OutputItem,
  tokenizer: Tokenizer,
): ParsedMessage {
  if (tokenIds !== undefined && (text === undefined || decodesTo(tokenIds, text, tokenizer))) {
    const reader = new OutputReader(tokenizer, options, []);
    for (const id of tokenIds) reader.push(id);
    return reader.end(finish).message;
  }
  const parser = new OutputParser(options);
  if (spelledMarkers) parser.pushText(text!);
  else parser.pushPlain(text!);
  return parser.end(finish).message;
}

function decodesTo(tokenIds: readonly number[], text: string, tokenizer: Tokenizer): boolean {
  return tokenIds.every((id) => id < tokenizer.vocabSize) && tokenizer.decode(tokenIds) === text;
}

function messageJson({ reasoning, content, toolCalls, complete, finish }: ParsedMessage) {
  return {
    reasoning,
    content,
    tool_calls: toolCalls.map(({ name, arguments: text }) => ({ name, arguments: text })),
    complete,
    finish_reason: finish,
  };
}
