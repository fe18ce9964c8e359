/** freehold run: one answer, streamed. */
import type { Command } from "commander";
import type { PromptInput } from "../engine/model.ts";
import { UsageError } from "../errors.ts";
import { type AnswerOptions, answerJson, chatRequest, generateOptions, withAnswerOptions } from "./generate-options.ts";
import { messageWithImages, readImageFile } from "./images.ts";
import { isIdList, noIdList, parseIds, readJsonFile, readStdin } from "./input.ts";
import { interruptible } from "./interrupt.ts";
import {
  command,
  type DraftOptions,
  type ModelOptions,
  openModel,
  terminalOf,
  withDraftOption,
  withModelOptions,
} from "./model-options.ts";
import { showAnswer } from "./show-answer.ts";

interface RunOptions extends ModelOptions, AnswerOptions, DraftOptions {
  readonly raw?: boolean;
  readonly ids?: string;
  readonly idsFile?: string;
  readonly image?: string[];
}

export function addRun(program: Command): void {
  const examples = [
    'freehold run "Who are you?"',
    "echo 2 + 3 | freehold run --temperature 0 --json",
    'freehold run --model ./DeepSeek-V4.1-Flash --image photo.jpg "What is this?"',
  ];
  const target = withModelOptions(command(program, "run [prompt]", "One answer to a prompt (or to stdin)", examples));
  withAnswerOptions(withDraftOption(target))
    .option("--raw", "send the text as it is, without chat format; spelled special tokens count")
    .option(
      "--image <file>",
      "PNG, JPEG, WebP or GIF in front of the text (may be repeated)",
      (file, list: string[] = []) => [...list, file],
    )
    .option("--ids <ids>", "a raw prompt of token ids: 1,2,3")
    .option("--ids-file <file>", "the same from a JSON file")
    .action(run);
}

async function run(prompt: string | undefined, options: RunOptions): Promise<void> {
  const terminal = terminalOf(options);
  using interruption = interruptible();
  const chosen = generateOptions(options);
  const input = await readPrompt(prompt, options);
  const started = performance.now();
  using model = await openModel(options, terminal, interruption.signal, options.image !== undefined);
  const loadSeconds = (performance.now() - started) / 1000;
  const events = model.generate(input, {
    ...chosen,
    signal: interruption.signal,
    onPrefill: (done, total) => terminal.progress(`reading the prompt: ${done} of ${total} tokens`),
  });
  const result = await showAnswer(events, terminal);
  if (terminal.json) await terminal.writeJson(answerJson(result, loadSeconds));
}

async function readPrompt(prompt: string | undefined, options: RunOptions): Promise<PromptInput> {
  const ids = await readIds(options);
  if (ids !== undefined) return withRawImages(ids, options);
  if (prompt === undefined && process.stdin.isTTY) {
    throw new UsageError("There is no prompt", { hint: 'Give one: freehold run "Who are you?", or pipe it in' });
  }
  // The line end of a piped text is not part of the question.
  const text = prompt ?? (await readStdin()).replace(/\r?\n$/, "");
  if (text === "") throw new UsageError("The prompt is empty", { code: "empty-prompt", hint: "Give some text" });
  if (options.raw) return withRawImages(text, options);
  return chatRequest([await messageWithImages(text, options.image ?? [])], options);
}

async function readIds({ ids, idsFile }: RunOptions): Promise<number[] | undefined> {
  if (ids !== undefined) return parseIds(ids, "--ids");
  if (idsFile === undefined) return undefined;
  const list = await readJsonFile(idsFile);
  if (isIdList(list)) return list;
  throw noIdList(idsFile);
}

/** A raw prompt says itself where its images stand: an image token each. */
async function withRawImages(prompt: string | number[], { image }: RunOptions): Promise<PromptInput> {
  return image === undefined ? prompt : { prompt, images: await Promise.all(image.map(readImageFile)) };
}
