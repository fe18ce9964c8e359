/**
 * What the n-gram memory of a V4.1 model costs a decoded token: its tables in memory, against rows read from disk within a budget.
 *   freehold synthesize-model FOLDER --preset v4.1-bench --quant mxfp4 --engram 4096
 *   node bench/engram.ts FOLDER [--budget MiB] [--tokens N]
 * All variants run by turns on one device. "Cold pages" reads every row from a disk whose pages the system has forgotten (Linux);
 * "warm pages" from the file, which the system has in memory; "warm rows" finds them in the cache.
 */
import { execFileSync } from "node:child_process";
import { join } from "node:path";
import { parseArgs } from "node:util";
import { withLateInputs } from "../src/device/device.ts";
import { folderFiles, openCheckpointFolder } from "../src/engine/checkpoint-folder.ts";
import { chooseDevice } from "../src/engine/choose-device.ts";
import type { EngramMemory } from "../src/engine/engram/engram-memory.ts";
import { openEngram } from "../src/engine/engram/open-engram.ts";
import { giveParameter } from "../src/engine/give-parameter.ts";
import { ModelRunner } from "../src/engine/model-runner.ts";
import { report } from "./measure.ts";

const { positionals, values } = parseArgs({
  allowPositionals: true,
  options: { budget: { type: "string", default: "512" }, tokens: { type: "string", default: "64" } },
});
const folder = positionals[0]!;
const tokens = Number(values.tokens);
const budget = Number(values.budget) * 2 ** 20;

const checkpoint = await openCheckpointFolder(folder);
const files = await folderFiles(folder);
const device = await chooseDevice();
for (const parameter of checkpoint.parameters)
  if (!parameter.name.startsWith("mtp.")) await giveParameter(checkpoint, parameter, device);
const open = (cacheBytes: number) => openEngram(checkpoint, files, undefined, { cacheBytes });
const ids = Array.from(
  { length: tokens },
  (_, i) => (Math.imul(i + 1, 0x9e3779b1) >>> 8) % checkpoint.config.vocabSize,
);

/** Milliseconds of every decoded token. Without overlap a step begins when all rows are read. */
async function decode(engram: EngramMemory | undefined, { overlap = true } = {}): Promise<number[]> {
  const runner = new ModelRunner(checkpoint.config, device, { engram, stepTokens: 16, context: 1024 });
  const { program } = runner;
  const run = program.run.bind(program);
  if (!overlap) program.run = async (step) => run(await withLateInputs(step));
  using sequence = runner.createSequence();
  const times: number[] = [];
  for (const id of ids) {
    const started = performance.now();
    await runner.step([{ sequence, tokenIds: [id], outputs: 1 }]);
    times.push(performance.now() - started);
  }
  return times.slice(4);
}

const median = (times: number[]) => times.toSorted((a, b) => a - b)[Math.floor(times.length / 2)]!;
const show = (name: string, times: number[], base: number, engram: EngramMemory) => {
  const { tokens: all, lookups, rowsRead, batches, reads, readBytes } = engram.counters;
  const a = (n: number) => (n / all).toFixed(1);
  const slower = ((100 * median(times)) / base - 100).toFixed(1);
  report(
    name,
    `${median(times).toFixed(2)} ms a token (${slower} % slower); a token ${a(lookups)} rows, ${a(rowsRead)} read in ${a(batches)} batches of ${a(reads)} reads, ${(readBytes / all / 1024).toFixed(1)} KiB; ${(engram.memoryBytes / 2 ** 20).toFixed(0)} MiB`,
  );
};

const started = performance.now();
const whole = (await open(Number.MAX_SAFE_INTEGER))!;
report(
  "tables in memory",
  `${(whole.memoryBytes / 2 ** 30).toFixed(2)} GiB in ${((performance.now() - started) / 1000).toFixed(1)} s`,
);
await decode(whole);
/** Lets the system forget the files of the tables; those of the weights stay. */
const forgetPages = () => {
  const names = new Set(
    checkpoint.tables.map(({ name }) => checkpoint.tensors.find((tensor) => tensor.name === name)!.file),
  );
  for (const name of names) execFileSync("dd", [`if=${join(folder, name)}`, "iflag=nocache", "count=0", "status=none"]);
};
const rounds = {
  memory: [] as number[],
  before: [] as number[],
  cold: [] as number[],
  pages: [] as number[],
  rows: [] as number[],
};
let gone = (await open(budget))!;
await decode(gone);
let pages = gone;
const warm = (await open(budget))!;
await decode(warm);
for (let round = 0; round < 3; round++) {
  rounds.memory.push(...(await decode(whole)));
  gone = (await open(budget))!;
  forgetPages();
  rounds.before.push(...(await decode(gone, { overlap: false })));
  gone = (await open(budget))!;
  forgetPages();
  rounds.cold.push(...(await decode(gone)));
  pages = (await open(budget))!;
  rounds.pages.push(...(await decode(pages)));
  rounds.rows.push(...(await decode(warm)));
}
const base = median(rounds.memory);
show("from memory", rounds.memory, base, whole);
show("from disk, cold pages", rounds.cold, base, gone);
show("cold pages, without overlap", rounds.before, base, gone);
show("from disk, warm pages", rounds.pages, base, pages);
show("from disk, warm rows", rounds.rows, base, warm);
process.exit();
