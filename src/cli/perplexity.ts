/** freehold perplexity: how well a model predicts a text. */
import type { Command } from "commander";
import type { Model } from "../engine/model.ts";
import { RequestError } from "../errors.ts";
import { readTextFile } from "./input.ts";
import { interruptible } from "./interrupt.ts";
import { command, type ModelOptions, openModel, terminalOf, wholeNumber, withModelOptions } from "./model-options.ts";

interface PerplexityOptions extends ModelOptions {
  readonly documents?: boolean;
  readonly window?: number;
}

/** Tokens to compute, of which those from `scored` on count. */
interface Passage {
  readonly tokenIds: readonly number[];
  readonly scored: number;
}

export function addPerplexity(program: Command): void {
  const examples = ["freehold perplexity book.txt", "freehold perplexity --documents stories.txt --json"];
  withModelOptions(command(program, "perplexity <file>", "Bits per byte and perplexity over a text", examples))
    .option("--documents", "the file is split at blank lines; each document is scored by itself, with its end")
    .option("--window <tokens>", "tokens a passage sees at most; passages overlap by half", wholeNumber(2))
    .action(perplexity);
}

async function perplexity(file: string, options: PerplexityOptions): Promise<void> {
  const terminal = terminalOf(options);
  using interruption = interruptible();
  const text = await readTextFile(file);
  using model = await openModel(options, terminal, interruption.signal);
  const window = Math.min(options.window ?? 2048, model.contextLength);
  const documents = options.documents ? text.split(/(?:\r?\n){2,}/).filter((document) => document !== "") : [text];
  const passages = options.documents
    ? documents.map((document) => wholeDocument(model, document))
    : windows(model, text, window);
  const tokens = passages.reduce((sum, { tokenIds, scored }) => sum + tokenIds.length - scored, 0);
  if (tokens === 0) throw new RequestError("The text is empty", { code: "empty-prompt", where: file });

  let nats = 0;
  let done = 0;
  for (const passage of passages) {
    nats += await negativeLogLikelihood(model, passage, interruption.signal);
    done += passage.tokenIds.length - passage.scored;
    terminal.progress(`${done} of ${tokens} tokens, ${(nats / done).toFixed(4)} nats a token`);
  }
  terminal.clearProgress();
  const bytes = documents.reduce((sum, document) => sum + Buffer.byteLength(document), 0);
  const result = {
    bits_per_byte: nats / Math.LN2 / bytes,
    perplexity: Math.exp(nats / tokens),
    tokens,
    bytes,
    ...(options.documents ? { documents: documents.length } : { window, stride: strideOf(window) }),
  };
  if (terminal.json) await terminal.writeJson(result);
  else {
    const how = options.documents ? `${documents.length} documents` : `window ${window}, stride ${strideOf(window)}`;
    const figures = `${result.bits_per_byte.toFixed(4)} bits per byte, perplexity ${result.perplexity.toFixed(4)}`;
    await terminal.write(`${figures}, ${tokens} tokens, ${bytes} bytes (${how})\n`);
  }
}

/** Begin of sequence, the document, and its end, which counts. */
function wholeDocument({ config, tokenizer }: Model, text: string): Passage {
  return { tokenIds: [config.bosTokenId, ...tokenizer.encode(text), config.eosTokenIds[0]!], scored: 1 };
}

function strideOf(window: number): number {
  return Math.max(1, Math.floor((window - 1) / 2));
}

/** Overlapping passages, each behind a begin of sequence; every token counts once, with at least half a window before it. */
function windows({ config, tokenizer }: Model, text: string, window: number): Passage[] {
  const ids = tokenizer.encode(text);
  const passages: Passage[] = [];
  for (let done = 0; done < ids.length; ) {
    const start = done === 0 ? 0 : done - (window - 1 - strideOf(window));
    const end = Math.min(ids.length, start + window - 1);
    passages.push({ tokenIds: [config.bosTokenId, ...ids.slice(start, end)], scored: 1 + done - start });
    done = end;
  }
  return passages;
}

/** Nats of the scored tokens, step by step so that no more logits are held than a step makes. */
async function negativeLogLikelihood(
  model: Model,
  { tokenIds, scored }: Passage,
  signal: AbortSignal,
): Promise<number> {
  model.checkPrompt(tokenIds, 0);
  using sequence = model.runner.createSequence();
  let nats = 0;
  const chunk = model.runner.stepTokens;
  for (let start = 0; start < tokenIds.length - 1; start += chunk) {
    const part = tokenIds.slice(start, Math.min(start + chunk, tokenIds.length - 1));
    const rows = await model.runner.append({ sequence, tokenIds: part, outputs: part.length }, { signal });
    rows.forEach((row, i) => {
      const next = start + i + 1;
      if (next >= scored) nats += logSumExp(row) - row[tokenIds[next]!]!;
    });
  }
  return nats;
}

function logSumExp(row: Float32Array): number {
  let largest = Number.NEGATIVE_INFINITY;
  for (const logit of row) if (logit > largest) largest = logit;
  let sum = 0;
  for (const logit of row) sum += Math.exp(logit - largest);
  return largest + Math.log(sum);
}
