/** The options that all commands with a model share, and the way from them to a loaded model. */
import { type Command, InvalidArgumentError, Option } from "commander";
import { deviceNames } from "../engine/choose-device.ts";
import { type DraftingName, draftings } from "../engine/drafting/drafting.ts";
import { type LoadOptions, loadModel } from "../engine/load-model.ts";
import type { Model } from "../engine/model.ts";
import { withoutUndefined } from "../engine/without-undefined.ts";
import { Terminal } from "./terminal.ts";

export interface OutputOptions {
  readonly json?: boolean;
  readonly quiet?: boolean;
}

export interface ModelOptions extends OutputOptions {
  readonly model?: string;
  readonly device: string;
  readonly threads?: number;
  readonly activations?: NonNullable<LoadOptions["activations"]>;
  readonly instructions?: string;
  readonly context?: number;
  readonly engramMemory?: number;
}

/** Of commands that write answers. */
export interface DraftOptions {
  readonly draft?: DraftingName;
}

export function terminalOf({ json, quiet }: OutputOptions): Terminal {
  return new Terminal({ json: json ?? false, quiet: quiet ?? false });
}

/** A command with its summary, two examples, and the options of every command. */
export function command(program: Command, usage: string, summary: string, examples: readonly string[]): Command {
  return program
    .command(usage)
    .summary(summary)
    .description(summary)
    .option("--json", "one JSON document on stdout and nothing else")
    .option("--quiet", "nothing on stderr but errors")
    .addHelpText("after", `\nExamples:\n${examples.map((example) => `  ${example}`).join("\n")}`);
}

/** These commands compute nothing: the options that all commands take are taken, and change nothing. */
export function withTokenizerOption(target: Command): Command {
  return target
    .option("--model <ref>", "folder with tokenizer.json, or a .gguf file (default: the embedded model)")
    .addOption(new Option("--device <name>").choices([...deviceNames]).hideHelp())
    .addOption(new Option("--threads <n>").argParser(wholeNumber(1)).hideHelp())
    .addOption(new Option("--context <tokens>").argParser(wholeNumber(1)).hideHelp())
    .addOption(new Option("--seed <n>").argParser(wholeNumber(Number.MIN_SAFE_INTEGER)).hideHelp());
}

export function withModelOptions(target: Command): Command {
  return target
    .option("--model <ref>", "folder in Hugging Face layout, or a .gguf file (default: the embedded model)")
    .addOption(new Option("--device <name>", "what computes").choices([...deviceNames]).default("auto"))
    .option("--threads <n>", "threads that compute (default: one a physical core)", wholeNumber(1))
    .addOption(
      new Option(
        "--activations <type>",
        "what weights in block formats are multiplied with: int8 is fast, float32 exact",
      )
        .choices(["int8", "float32"])
        .default("int8"),
    )
    .option("--instructions <set>", "instruction set of the kernels (default: the best; freehold doctor lists them)")
    .option("--context <tokens>", "tokens of context to make room for", wholeNumber(1))
    .option("--engram-memory <MiB>", "memory for rows of V4.1's n-gram tables (default: 512)", wholeNumber(0))
    .option("--seed <n>", "the same seed gives the same answer", wholeNumber(Number.MIN_SAFE_INTEGER));
}

export function withDraftOption(target: Command): Command {
  const what = "what guesses tokens ahead; never changes an answer";
  return target.addOption(new Option("--draft <kind>", what).choices(draftings).default("auto"));
}

/** Loads the model with progress on a terminal. */
export async function openModel(
  options: ModelOptions & DraftOptions,
  terminal: Terminal,
  signal?: AbortSignal,
  /** Load what reads images too. */
  images = false,
): Promise<Model> {
  const model = await loadModel(options.model, {
    device: options.device,
    images,
    ...withoutUndefined({
      threads: options.threads,
      activations: options.activations,
      instructions: options.instructions,
      drafting: options.draft,
      engramCacheBytes: options.engramMemory === undefined ? undefined : options.engramMemory * 2 ** 20,
    }),
    ...(options.context === undefined ? {} : { contextLength: options.context }),
    ...(signal === undefined ? {} : { signal }),
    onProgress: (done, total) => terminal.progress(`loading ${Math.floor((100 * done) / total)} %`),
  });
  terminal.clearProgress();
  for (const note of model.notes) terminal.note(`note: ${note}`);
  if (model.contextLength > model.config.maxPositionEmbeddings) {
    terminal.note(
      `warning: the model was made for ${model.config.maxPositionEmbeddings} tokens of context, not ${model.contextLength}`,
    );
  }
  return model;
}

/** A parser of option values. */
export function wholeNumber(least: number, most = Number.MAX_SAFE_INTEGER): (text: string) => number {
  const range = most === Number.MAX_SAFE_INTEGER ? `of at least ${least}` : `from ${least} to ${most}`;
  return (text) => {
    const value = Number(text);
    if (/^-?\d+$/.test(text.trim()) && Number.isSafeInteger(value) && value >= least && value <= most) return value;
    throw new InvalidArgumentError(`Give a whole number ${range}.`);
  };
}

export function number(text: string): number {
  const value = Number(text);
  if (text.trim() !== "" && Number.isFinite(value)) return value;
  throw new InvalidArgumentError("Give a number.");
}
