/** freehold logits: what the model thinks of every next token. */
import type { Command } from "commander";
import type { Model } from "../engine/model.ts";
import { UsageError } from "../errors.ts";
import { isIdList, noIdList, parseIds, readJsonFile } from "./input.ts";
import { interruptible } from "./interrupt.ts";
import { command, type ModelOptions, openModel, terminalOf, wholeNumber, withModelOptions } from "./model-options.ts";
import type { Terminal } from "./terminal.ts";

interface LogitsOptions extends ModelOptions {
  readonly ids?: string;
  readonly idsFile?: string;
  readonly text?: string;
  readonly last?: boolean;
  readonly chunk?: number;
  readonly steps?: boolean;
}

export function addLogits(program: Command): void {
  const examples = ["freehold logits --ids 0,4036,1816 --last", 'freehold logits --text "Hello" --json'];
  withModelOptions(command(program, "logits", "The model's logits for a sequence of tokens", examples))
    .option("--ids <ids>", "token ids: 1,2,3")
    .option("--ids-file <file>", "a JSON list of ids; a list of lists runs as one batch")
    .option("--text <text>", "text, tokenised as it is")
    .option("--last", "only at the last position")
    .option("--chunk <n>", "compute the tokens in chunks of n", wholeNumber(1))
    .option("--steps", "compute one token at a time")
    .action(logits);
}

async function logits(options: LogitsOptions): Promise<void> {
  const terminal = terminalOf(options);
  using interruption = interruptible();
  const sequences = await readSequences(options);
  using model = await openModel(options, terminal, interruption.signal);
  const ids = sequences ?? [model.encode(options.text!)];
  for (const sequence of ids) model.checkPrompt(sequence, 0);
  const chunk = options.steps ? 1 : (options.chunk ?? model.runner.stepTokens);
  const rows = await runBatch(model, ids, chunk, options.last ?? false, interruption.signal);
  await print(terminal, model, ids, rows);
}

/** Undefined when a text is given, which needs the model's tokenizer. */
async function readSequences(options: LogitsOptions): Promise<number[][] | undefined> {
  if (options.ids !== undefined) return [parseIds(options.ids, "--ids")];
  if (options.idsFile !== undefined) {
    const value = await readJsonFile(options.idsFile);
    if (isIdList(value)) return [value];
    if (Array.isArray(value) && value.every(isIdList)) return value;
    throw noIdList(options.idsFile);
  }
  if (options.text !== undefined) return undefined;
  throw new UsageError("There are no tokens", { hint: "Give --ids 1,2,3, --ids-file FILE or --text TEXT" });
}

/** All sequences in one ragged batch, each in chunks. */
async function runBatch(
  model: Model,
  ids: number[][],
  chunk: number,
  last: boolean,
  signal: AbortSignal,
): Promise<Float32Array[][]> {
  const { runner } = model;
  const sequences = ids.map(() => runner.createSequence());
  const rows = ids.map((): Float32Array[] => []);
  for (let start = 0; ids.some((list) => list.length > start); start += chunk) {
    const batch = ids
      .map((list, s) => ({
        s,
        sequence: sequences[s]!,
        tokenIds: list.slice(start, start + chunk),
        total: list.length,
      }))
      .filter(({ tokenIds }) => tokenIds.length > 0)
      .map((part) => {
        const isLast = start + part.tokenIds.length === part.total;
        return { ...part, outputs: last ? Number(isLast) : part.tokenIds.length };
      });
    const results = await runner.step(batch, signal);
    batch.forEach(({ s }, i) => {
      rows[s]!.push(...results[i]!);
    });
  }
  return rows;
}

/** One sequence gives one document, several (or none) a list of them. */
async function print(terminal: Terminal, model: Model, ids: number[][], rows: Float32Array[][]): Promise<void> {
  if (!terminal.json) {
    for (const [s, list] of ids.entries()) await printTop(terminal, model, list, rows[s]!);
    return;
  }
  const asList = ids.length !== 1;
  // Row by row: a long sequence over a large vocabulary is more text than one string can hold.
  if (asList) await terminal.write("[");
  for (const [s, list] of ids.entries()) {
    const first = list.length - rows[s]!.length;
    const positions = rows[s]!.map((_, i) => first + i);
    const head = JSON.stringify({ token_ids: list, positions }).slice(0, -1);
    await terminal.write(`${s > 0 ? "," : ""}${head},"logits":[`);
    for (const [i, row] of rows[s]!.entries())
      await terminal.write(`${i > 0 ? "," : ""}${JSON.stringify(Array.from(row))}`);
    await terminal.write("]}");
  }
  await terminal.write(asList ? "]\n" : "\n");
}

/** For people: the five most probable tokens at each position. */
async function printTop(terminal: Terminal, model: Model, list: number[], rows: Float32Array[]): Promise<void> {
  const first = list.length - rows.length;
  const name = (id: number) => (model.hasTokenizer ? `${JSON.stringify(model.decode([id]))} (${id})` : String(id));
  for (const [i, row] of rows.entries()) {
    const top = Array.from(row.keys())
      .sort((a, b) => row[b]! - row[a]! || a - b)
      .slice(0, 5)
      .map((id) => `${name(id)} ${row[id]!.toFixed(3)}`);
    await terminal.write(`${first + i} ${name(list[first + i]!)}: ${top.join(", ")}\n`);
  }
}
