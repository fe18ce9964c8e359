/** freehold synthesize-model: a model of random weights, to time a machine without a download. */
import { type Command, Option } from "commander";
import { type SynthesizeType, synthesizeModel, synthesizeTypes } from "../engine/synthesize-model.ts";
import { interruptible } from "./interrupt.ts";
import { command, type OutputOptions, terminalOf, wholeNumber } from "./model-options.ts";

interface SynthesizeModelOptions extends OutputOptions {
  readonly preset: string;
  readonly quant: SynthesizeType;
  readonly seed?: number;
  readonly engram?: number;
  readonly mtp?: boolean;
}

/** Rows of a table are numbered by 31 bits: 2^31 of 264 bytes. */
const mostEngramMiB = 500_000;

export function addSynthesizeModel(program: Command): void {
  const examples = [
    "freehold synthesize-model tiny.gguf --preset tiny --quant f32",
    "freehold synthesize-model flash-2.gguf --preset v4-flash:2 --quant mxfp4",
    "freehold synthesize-model v41 --preset v4.1-bench --engram 1024",
  ];
  command(
    program,
    "synthesize-model <out>",
    "Write a random-weight model of a given shape (GGUF; V4.1: a folder)",
    examples,
  )
    .option(
      "--preset <name>",
      "tiny, bench (2.8 B parameters) or v4-flash:N (N layers); v4.1-tiny, v4.1-bench, v4.1-flash:N",
      "tiny",
    )
    .addOption(new Option("--quant <type>", "type of the experts").choices([...synthesizeTypes]).default("q4_0"))
    .option("--seed <n>", "the same seed gives the same weights", wholeNumber(0))
    .option("--mtp", "with a module for multi-token prediction (V4; to try drafting)")
    .option(
      "--engram <MiB>",
      "size of each table of V4.1's n-gram memory (default: 256)",
      wholeNumber(1, mostEngramMiB),
    )
    .action(synthesize);
}

async function synthesize(
  out: string,
  { preset, quant, seed, engram, mtp, ...rest }: SynthesizeModelOptions,
): Promise<void> {
  const terminal = terminalOf(rest);
  using interruption = interruptible();
  const result = await synthesizeModel(out, {
    preset,
    type: quant,
    mtp: mtp ?? false,
    ...(seed === undefined ? {} : { seed }),
    ...(engram === undefined ? {} : { engramBytes: engram * 2 ** 20 }),
    signal: interruption.signal,
    onProgress: (done, total) => terminal.progress(`writing ${Math.floor((100 * done) / total)} %`),
  });
  terminal.clearProgress();
  if (terminal.json) await terminal.writeJson({ file: out, ...result });
  else
    await terminal.write(
      `${out}: ${(result.parameters / 1e6).toFixed(1)} M parameters, ${(result.bytes / 1e6).toFixed(1)} MB\n`,
    );
}
