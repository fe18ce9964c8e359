/** The command line: one file a command. Here they are put together, and every way out gets its exit status. */
import { readFileSync } from "node:fs";
import { Command, CommanderError } from "commander";
import { UsageError } from "../errors.ts";
import { addBench } from "./bench.ts";
import { addChat } from "./chat.ts";
import { addDetokenize } from "./detokenize.ts";
import { addDoctor } from "./doctor.ts";
import { addInspect } from "./inspect.ts";
import { addKeys } from "./keys.ts";
import { addLogits } from "./logits.ts";
import { addParse } from "./parse.ts";
import { addPerplexity } from "./perplexity.ts";
import { addRender } from "./render.ts";
import { addRun } from "./run.ts";
import { addServe } from "./serve.ts";
import { addSynthesizeModel } from "./synthesize-model.ts";
import { exitStatus, formatError, Terminal } from "./terminal.ts";
import { addTokenize } from "./tokenize.ts";

/** Runs a command line (without the program's name) and sets the exit status of the process. */
export async function main(args: readonly string[]): Promise<void> {
  const terminal = new Terminal({ json: args.includes("--json"), quiet: args.includes("--quiet") });
  // What is written is lost from here on: say so once and stop at once.
  process.stdout.on("error", ({ code, message }: NodeJS.ErrnoException) => {
    const isGone = code === "EPIPE";
    const what = isGone ? "The reader of the output went away" : `The output cannot be written: ${message}`;
    const hint = isGone ? "What it did not read is lost" : "Make room, or write it elsewhere";
    process.stderr.write(`error: ${formatError(what, "stdout", hint)}\n`);
    process.exit(exitStatus.failed);
  });
  process.stderr.on("error", () => {}); // what cannot be told changes no result
  try {
    await buildProgram().parseAsync(withDefaultCommand(args), { from: "user" });
  } catch (error) {
    process.exitCode = report(error, terminal);
  }
}

/** Without a command: a conversation on a terminal, an answer to stdin otherwise. */
function withDefaultCommand(args: readonly string[]): string[] {
  const [first] = args;
  const namesCommand =
    first !== undefined && (!first.startsWith("-") || ["-h", "--help", "-V", "--version"].includes(first));
  return namesCommand ? [...args] : [process.stdin.isTTY ? "chat" : "run", ...args];
}

function buildProgram(): Command {
  const program = new Command("freehold")
    .description("Run DeepSeek-V4-class models on hardware you own")
    .version(version(), "-V, --version", "print the version")
    .helpOption("-h, --help", "print this help")
    .showSuggestionAfterError(true)
    .exitOverride()
    // Errors are thrown; main prints them in one form.
    .configureOutput({ outputError: () => undefined })
    .addHelpText(
      "after",
      `
Examples:
  freehold run "Who are you?"                   one answer from the embedded model
  freehold chat --model ./DeepSeek-V4-Flash     a conversation with a model in a folder

Every command has its own help: freehold run --help`,
    );
  addRun(program);
  addChat(program);
  addServe(program);
  addKeys(program);
  addTokenize(program);
  addDetokenize(program);
  addRender(program);
  addParse(program);
  addLogits(program);
  addPerplexity(program);
  addInspect(program);
  addBench(program);
  addSynthesizeModel(program);
  addDoctor(program);
  return program;
}

function version(): string {
  const file = new URL("../../package.json", import.meta.url);
  return (JSON.parse(readFileSync(file, "utf8")) as { version: string }).version;
}

/** Prints what was thrown and returns the exit status. */
function report(error: unknown, terminal: Terminal): number {
  if (error instanceof CommanderError) {
    if (error.exitCode === 0) return exitStatus.done;
    if (error.code === "commander.help") return exitStatus.usage;
    terminal.error(new UsageError(usageMessage(error), { hint: "See freehold --help" }));
    return exitStatus.usage;
  }
  if (isAbort(error)) {
    terminal.error(new UsageError("Interrupted", { code: "interrupted" }));
    return exitStatus.interrupted;
  }
  terminal.error(error);
  return error instanceof UsageError ? exitStatus.usage : exitStatus.failed;
}

/** "error: unknown option '--x'" as a sentence. */
function usageMessage({ message }: CommanderError): string {
  const text = message
    .replace(/^error: /, "")
    .replaceAll(/\s*\n\s*/g, " ")
    .replace(/\.$/, "");
  return text.charAt(0).toUpperCase() + text.slice(1);
}

function isAbort(error: unknown): boolean {
  return error instanceof Error && error.name === "AbortError";
}
