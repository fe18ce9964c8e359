/**
 * Times Freehold and llama.cpp (node-llama-cpp's prebuilt binary, installed into a folder of its own) on the same file, in turn,
 * and prints the ratios. Run: node bench/peers/run.ts FILE.gguf [--threads 1] [--prompt 512] [--generate 32] [--rounds 5] [--instructions avx2]
 * Without a file the `tiny` model is synthesised. Run it alone: a busy machine slows the two by different amounts.
 */
import { execFileSync } from "node:child_process";
import { existsSync, mkdirSync, readdirSync, renameSync, writeFileSync } from "node:fs";
import { cpus, tmpdir } from "node:os";
import { join } from "node:path";
import { parseArgs } from "node:util";

/** node-llama-cpp 3.22.1 carries llama.cpp v0.5.0. */
const peer = "node-llama-cpp@3.22.1";
const folder = join(import.meta.dirname, ".installed");
const program = join(import.meta.dirname, "../../bin/freehold.js");

const { values, positionals } = parseArgs({
  allowPositionals: true,
  options: {
    threads: { type: "string", default: "1" },
    prompt: { type: "string", default: "512" },
    generate: { type: "string", default: "32" },
    rounds: { type: "string", default: "5" },
    instructions: { type: "string" },
  },
});

interface Speeds {
  readonly prefill: number;
  readonly decode: number;
}

function freehold(file: string): Speeds {
  const instructions = values.instructions === undefined ? [] : ["--instructions", values.instructions];
  const args = [
    "bench",
    ...instructions,
    "--model",
    file,
    "--prompt-tokens",
    values.prompt,
    "--generate-tokens",
    values.generate,
  ];
  const out = execFileSync(process.execPath, [
    program,
    ...args,
    "--threads",
    values.threads,
    "--runs",
    "1",
    "--json",
    "--quiet",
  ]);
  const { prefill, decode, memory, peak_rss_bytes: peak } = JSON.parse(out.toString());
  const share = (100 * memory.share_of_ceiling).toFixed(0);
  const ceiling = (memory.read_ceiling_bytes_per_second / 1e9).toFixed(1);
  console.log(`  Freehold reads ${share} % of ${ceiling} GB/s while it decodes; ${(peak / 1e6).toFixed(0)} MB at most`);
  return { prefill: prefill.tokens_per_second, decode: decode.tokens_per_second };
}

function llamaCpp(file: string): Speeds {
  const script = join(folder, "time.mjs");
  const out = execFileSync(process.execPath, [script, file, values.threads, values.prompt, values.generate], {
    cwd: folder,
  });
  return JSON.parse(out.toString());
}

/** The peer's own program: it lives in the peer's folder, where its packages are found. */
const script = `
import { getLlama, LlamaLogLevel } from "node-llama-cpp";
const [file, threads, prompt, generate] = process.argv.slice(2);
const llama = await getLlama({ gpu: false, build: "never", logLevel: LlamaLogLevel.error, maxThreads: Number(threads) });
const model = await llama.loadModel({ modelPath: file });
const context = await model.createContext({ contextSize: 4096, threads: Number(threads), batchSize: 512 });
const sequence = context.getSequence();
const tokens = Array.from({ length: Number(prompt) }, (_, i) => 2 + ((i * 7919 + 17) % 256));
await sequence.evaluateWithoutGeneratingNewTokens(tokens.slice(0, 16));
await sequence.clearHistory();
const started = performance.now();
await sequence.evaluateWithoutGeneratingNewTokens(tokens);
const prefilled = performance.now();
let first;
let count = 0;
for await (const token of sequence.evaluate([5], { temperature: 0 })) {
  first ??= performance.now();
  if (count++ === Number(generate)) break;
}
const decode = Number(generate) / ((performance.now() - first) / 1000);
console.log(JSON.stringify({ prefill: tokens.length / ((prefilled - started) / 1000), decode }));
process.exit(0);
`;

function install(): void {
  if (!existsSync(join(folder, "node_modules/node-llama-cpp"))) {
    mkdirSync(folder, { recursive: true });
    writeFileSync(join(folder, "package.json"), '{"private": true, "type": "module"}');
    execFileSync("npm", ["install", "--ignore-scripts", "--no-save", peer], { cwd: folder, stdio: "inherit" });
  }
  writeFileSync(join(folder, "time.mjs"), script);
  // Its variant for AMX stops with an assertion on this architecture; without it llama.cpp takes the next best.
  const packages = join(folder, "node_modules/@node-llama-cpp");
  for (const name of readdirSync(packages)) {
    const library = join(packages, name, "bins", name, "libggml-cpu-sapphirerapids.so");
    if (existsSync(library)) renameSync(library, `${library}.aside`);
  }
}

function tinyModel(): string {
  const path = join(tmpdir(), "freehold-peers-tiny.gguf");
  execFileSync(process.execPath, [program, "synthesize-model", path, "--preset", "tiny", "--quiet"]);
  return path;
}

const median = (numbers: number[]) => numbers.sort((a, b) => a - b)[Math.floor(numbers.length / 2)]!;

install();
const file = positionals.at(0) ?? tinyModel();
const rounds = { ours: [] as Speeds[], theirs: [] as Speeds[] };
for (let round = 0; round < Number(values.rounds); round++) {
  rounds.ours.push(freehold(file));
  rounds.theirs.push(llamaCpp(file));
}
console.log(
  `${cpus().at(0)?.model}, ${values.threads} threads, prompt of ${values.prompt}, medians of ${values.rounds}, ${file}`,
);
for (const phase of ["prefill", "decode"] as const) {
  const [ours, theirs] = [
    median(rounds.ours.map((speeds) => speeds[phase])),
    median(rounds.theirs.map((speeds) => speeds[phase])),
  ];
  console.log(
    `${phase}  Freehold ${ours.toFixed(1)}  llama.cpp ${theirs.toFixed(1)} tokens/s  ratio ${(ours / theirs).toFixed(3)}`,
  );
}
