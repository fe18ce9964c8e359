/** freehold bench: prefill and decode speed of a model, and what share of this machine's read speed decoding reaches. */
import { type Command, Option } from "commander";
import { sequenceBytes } from "../engine/cache/sequence-bytes.ts";
import { syntheticSequence } from "../engine/cache/synthetic-context.ts";
import { type DraftingName, draftings } from "../engine/drafting/drafting.ts";
import { weightBytesPerToken } from "../engine/memory-need.ts";
import type { Model } from "../engine/model.ts";
import { benchDrafting, type DraftingReport, printDrafting } from "./bench-drafting.ts";
import { interruptible } from "./interrupt.ts";
import { median } from "./median.ts";
import { command, type ModelOptions, openModel, terminalOf, wholeNumber, withModelOptions } from "./model-options.ts";
import type { Terminal } from "./terminal.ts";

interface BenchOptions extends ModelOptions {
  readonly promptTokens: number;
  readonly generateTokens: number;
  readonly batch: number;
  readonly runs: number;
  readonly depth?: readonly number[];
  readonly draft?: DraftingName;
  readonly prompt?: string;
}

export function addBench(program: Command): void {
  const examples = [
    "freehold bench",
    "freehold bench --model bench.gguf --prompt-tokens 512 --generate-tokens 64 --json",
    "freehold bench --model bench.gguf --depth 1024,65536,262144",
    'freehold bench --draft auto --prompt "Write a function that sorts a list" --generate-tokens 256',
  ];
  withModelOptions(
    command(program, "bench", "Prefill and decode speed, and the share of the machine's read speed", examples),
  )
    .option("--prompt-tokens <n>", "tokens of the prompt", wholeNumber(1, 10_000_000), 512)
    .option("--generate-tokens <n>", "tokens to decode", wholeNumber(1), 64)
    .option("--batch <n>", "sequences that decode together", wholeNumber(1), 1)
    .option("--runs <n>", "the median of so many runs", wholeNumber(1), 3)
    .option("--depth <tokens...>", "decode also behind so much context, made of random rows", depths)
    .addOption(new Option("--draft <kind>", "answer also with this drafter, and without by turns").choices(draftings))
    .option("--prompt <text>", "what --draft answers; drafts depend on it")
    .action(bench);
}

async function bench(options: BenchOptions): Promise<void> {
  const terminal = terminalOf(options);
  using interruption = interruptible();
  const { draft, ...plain } = options;
  using model = await openModel(plain, terminal, interruption.signal);
  model.checkPrompt({ length: options.promptTokens }, options.generateTokens);
  const prompt = Array.from({ length: options.promptTokens }, (_, i) => token(model, i));
  for (const length of options.depth ?? []) model.checkPrompt({ length }, options.generateTokens);
  const behind: DepthReport[] = [];
  for (const tokens of options.depth ?? []) {
    terminal.progress(`decoding behind ${tokens} tokens`);
    behind.push(await decodeBehind(model, tokens, options, interruption.signal));
  }
  const drafting = draft && (await measureDrafting(model, { ...options, draft }, terminal, interruption.signal));
  const prefill: number[] = [];
  const decode: number[] = [];
  const ceilings: number[] = [];
  let peakBytes = 0;
  for (let run = 0; run < options.runs; run++) {
    terminal.progress(`run ${run + 1} of ${options.runs}`);
    const speeds = await once(model, prompt, options, interruption.signal);
    prefill.push(speeds.prefill);
    decode.push(speeds.decode);
    peakBytes ||= process.resourceUsage().maxRSS * 1024; // before the measurement below takes its own
    // After each run: a shared machine reads at another speed a second later.
    ceilings.push((await model.device.readCeiling?.()) ?? 0);
  }
  terminal.clearProgress();
  const ceiling = median(ceilings) || null;
  const bytesPerToken = weightBytesPerToken(model.config, model.device);
  const tokensPerSecond = median(decode);
  const report = {
    device: model.device.name,
    kernels: model.device.kernels,
    threads: model.device.threads,
    model: model.name,
    batch: options.batch,
    prefill: { tokens: options.promptTokens, tokens_per_second: median(prefill), median_of: options.runs },
    decode: { tokens: options.generateTokens, tokens_per_second: tokensPerSecond, bytes_per_token: bytesPerToken },
    memory: {
      read_ceiling_bytes_per_second: ceiling,
      // A step of a batch reads the weights once for all its sequences; experts apart, which they share in part.
      share_of_ceiling:
        ceiling && (median(decode.map((speed, run) => speed / ceilings[run]!)) * bytesPerToken) / options.batch,
    },
    ...(options.depth === undefined ? {} : { behind }),
    ...(drafting === undefined ? {} : { drafting }),
    peak_rss_bytes: peakBytes,
  };
  await print(report, terminal);
}

/** The model once more, with what drafts: its weights are those of the same files. */
async function measureDrafting(
  plain: Model,
  { prompt, ...options }: BenchOptions & { readonly draft: DraftingName },
  terminal: Terminal,
  signal: AbortSignal,
): Promise<DraftingReport> {
  using model = await openModel(options, terminal, signal);
  terminal.progress(`drafting with ${model.drafting.kind}`);
  return await benchDrafting(plain, model, { ...options, prompt }, signal);
}

/** Some token id, another for each i: which ones does not change the speed of dense layers. */
function token({ config }: Model, i: number): number {
  return (i * 7919 + 17) % config.vocabSize;
}

/** Tokens a second of a prompt, and of decoding behind it. */
async function once(model: Model, prompt: number[], { generateTokens, batch }: BenchOptions, signal: AbortSignal) {
  const { runner } = model;
  const sequences = Array.from({ length: batch }, () => runner.createSequence());
  try {
    const started = performance.now();
    await runner.append({ sequence: sequences[0]!, tokenIds: prompt, outputs: 1 }, { signal });
    const prefilled = performance.now();
    for (const sequence of sequences.slice(1))
      await runner.append({ sequence, tokenIds: prompt, outputs: 1 }, { signal });
    const decoding = performance.now();
    for (let i = 0; i < generateTokens; i++) {
      const next = sequences.map((sequence, s) => ({ sequence, tokenIds: [token(model, i * 31 + s)], outputs: 1 }));
      await runner.step(next, signal);
    }
    const seconds = (performance.now() - decoding) / 1000;
    return { prefill: (prompt.length * 1000) / (prefilled - started), decode: (generateTokens * batch) / seconds };
  } finally {
    for (const sequence of sequences) sequence[Symbol.dispose]();
  }
}

interface DepthReport {
  readonly context_tokens: number;
  readonly milliseconds_per_token: number;
  /** Of the sequence's caches, and of its growing caches for each further token. */
  readonly cache_bytes: number;
  readonly cache_bytes_per_token: number;
  /** Caches and working memory of the program. */
  readonly program_bytes: number;
}

/** The median step behind a context whose caches are filled with random rows. */
async function decodeBehind(
  model: Model,
  tokens: number,
  { generateTokens, runs }: BenchOptions,
  signal: AbortSignal,
): Promise<DepthReport> {
  const { runner } = model;
  using base = await syntheticSequence(runner, tokens);
  const times: number[] = [];
  // A run before those that count: it makes room, and touches the experts that the same tokens choose again.
  for (let run = -1; run < runs; run++) {
    using sequence = base.fork();
    for (let i = 0; i < generateTokens; i++) {
      signal.throwIfAborted();
      const started = performance.now();
      await runner.step([{ sequence, tokenIds: [token(model, i * 31)], outputs: 1 }]);
      if (run >= 0) times.push(performance.now() - started);
    }
  }
  const pages = runner.cache.layouts.map(({ name, pageValues }) => base.cache.pagesOf(name).size * 4 * pageValues);
  return {
    context_tokens: tokens,
    milliseconds_per_token: median(times),
    cache_bytes: pages.reduce((sum, bytes) => sum + bytes, 0),
    cache_bytes_per_token: sequenceBytes(runner.cache).bytesPerToken,
    program_bytes: runner.program.memoryBytes,
  };
}

function depths(text: string, others: readonly number[] = []): readonly number[] {
  return [...others, ...text.split(",").map(wholeNumber(1))];
}

interface Report {
  readonly device: string;
  readonly kernels: string;
  readonly prefill: { readonly tokens: number; readonly tokens_per_second: number };
  readonly decode: { readonly tokens_per_second: number; readonly bytes_per_token: number };
  readonly threads: number;
  readonly memory: {
    readonly read_ceiling_bytes_per_second: number | null;
    readonly share_of_ceiling: number | null;
  };
  readonly behind?: readonly DepthReport[];
  readonly drafting?: DraftingReport;
  readonly peak_rss_bytes: number;
}

async function print(report: Report, terminal: Terminal): Promise<void> {
  if (terminal.json) {
    await terminal.writeJson(report);
    return;
  }
  const { prefill, decode, memory } = report;
  const { read_ceiling_bytes_per_second: ceiling, share_of_ceiling: share } = memory;
  const reads = `the ${((ceiling ?? 0) / 1e9).toFixed(1)} GB/s that ${report.threads} threads read`;
  await terminal.write(
    [
      `device    ${report.device} (${report.kernels}), ${report.threads} threads`,
      `prefill   ${prefill.tokens_per_second.toFixed(1)} tokens/s over ${prefill.tokens} tokens`,
      `decode    ${decode.tokens_per_second.toFixed(1)} tokens/s, ${(decode.bytes_per_token / 1e6).toFixed(1)} MB of weights a token`,
      `memory    ${share === null ? "not measured" : `${(100 * share).toFixed(0)} % of ${reads}`}`,
      ...(report.behind ?? []).map(
        (depth) =>
          `behind    ${depth.context_tokens} tokens: ${depth.milliseconds_per_token.toFixed(2)} ms a token; ${(depth.cache_bytes / 1e6).toFixed(1)} MB of caches, ${(depth.cache_bytes_per_token / 1e3).toFixed(2)} KB a token`,
      ),
      ...(report.drafting === undefined ? [] : [printDrafting(report.drafting)]),
      `peak      ${(report.peak_rss_bytes / 1e6).toFixed(0)} MB resident`,
      "",
    ].join("\n"),
  );
}
