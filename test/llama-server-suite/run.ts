/**
 * Runs llama.cpp's own tests of its server against Freehold's: node test/llama-server-suite/run.ts [--file test_basic.py] [--json FILE]
 * [--mutate [--break auth]]. The first run fetches the tests (the git bundle inside npm's node-llama-cpp) and makes a Python environment for them.
 * Each file is run as it is; tests that failed and that relaxed.json declares are run once more without comparing the other model's
 * words, and are counted apart. --mutate breaks one feature after the other and must find fewer tests passed.
 */
import { execFileSync, spawnSync } from "node:child_process";
import { existsSync, mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { delimiter, join } from "node:path";
import { parseArgs } from "node:util";
import { excluded, suiteFiles } from "./files.ts";
import { breakable } from "./shim-routes.ts";

/** node-llama-cpp 3.22.1 carries llama.cpp v0.5.0. */
const peer = "node-llama-cpp@3.22.1";
const installed = join(import.meta.dirname, ".installed");
const tests = join(installed, "llama.cpp/tools/server/tests");

const { values } = parseArgs({
  options: {
    file: { type: "string", multiple: true },
    json: { type: "string" },
    mutate: { type: "boolean", default: false },
    break: { type: "string", multiple: true, default: [...breakable] },
  },
});

interface Outcome {
  readonly test: string;
  readonly result: "passed" | "failed" | "skipped";
  readonly reason: string;
}

interface FileResult {
  readonly file: string;
  readonly tests: number;
  readonly passed: number;
  /** Passed when the words and token counts of the suite's model are not compared. */
  readonly passedRelaxed: number;
  readonly skipped: number;
  readonly failed: readonly Outcome[];
}

function install(): void {
  if (existsSync(join(installed, "venv/bin/python"))) return;
  mkdirSync(installed, { recursive: true });
  const npm = { cwd: installed, stdio: "inherit" } as const;
  writeFileSync(join(installed, "package.json"), '{"private":true}');
  execFileSync("npm", ["install", "--ignore-scripts", "--no-audit", "--no-fund", peer], npm);
  const bundle = join(installed, "node_modules/node-llama-cpp/llama/gitRelease.bundle");
  if (!existsSync(join(installed, "llama.cpp"))) execFileSync("git", ["clone", "--quiet", bundle, "llama.cpp"], npm);
  execFileSync("python3", ["-m", "venv", "venv"], npm);
  execFileSync(
    join(installed, "venv/bin/python"),
    ["-m", "pip", "install", "--quiet", "-r", join(tests, "requirements.txt")],
    npm,
  );
}

/** What the suite starts in place of llama-server. */
function writeProgram(): string {
  const path = join(installed, "llama-server");
  const script = `#!/bin/sh\nexec '${process.execPath}' '${join(import.meta.dirname, "shim.ts")}' "$@"\n`;
  writeFileSync(path, script, { mode: 0o755 });
  return path;
}

function pytest(file: string, { relax, broken }: { relax: boolean; broken?: string }): Outcome[] {
  const folder = mkdtempSync(join(tmpdir(), "freehold-suite-"));
  const report = join(folder, "report.jsonl");
  writeFileSync(report, "");
  const args = [
    "-m",
    "pytest",
    "-p",
    "freehold_suite",
    "-p",
    "no:cacheprovider",
    "-q",
    "-m",
    "not slow",
    `unit/${file}`,
  ];
  const run = spawnSync(join(installed, "venv/bin/python"), args, {
    cwd: tests,
    timeout: 600_000,
    env: {
      ...process.env,
      PYTHONPATH: [import.meta.dirname, process.env.PYTHONPATH].filter(Boolean).join(delimiter),
      LLAMA_SERVER_BIN_PATH: writeProgram(),
      FREEHOLD_REPORT: report,
      FREEHOLD_RELAX: relax ? "1" : "0",
      ...(broken === undefined ? {} : { FREEHOLD_SHIM_BREAK: broken }),
    },
  });
  const lines = readFileSync(report, "utf8").split("\n");
  rmSync(folder, { recursive: true });
  const outcomes = lines.filter((line) => line !== "").map((line) => JSON.parse(line) as Outcome);
  if (outcomes.length === 0 && !relax) throw new Error(`${file} gave no result:\n${run.stdout}\n${run.stderr}`);
  return worstOfEach(outcomes);
}

/** A test that passed and whose server then did not stop is told twice. */
function worstOfEach(outcomes: readonly Outcome[]): Outcome[] {
  const byTest = new Map<string, Outcome>();
  for (const outcome of outcomes) if (byTest.get(outcome.test)?.result !== "failed") byTest.set(outcome.test, outcome);
  return [...byTest.values()];
}

function runFile(file: string): FileResult {
  const outcomes = pytest(file, { relax: false });
  const failed = outcomes.filter(({ result }) => result === "failed");
  const relaxed = failed.length > 0 ? pytest(file, { relax: true }) : [];
  const mended = new Set(relaxed.filter(({ result }) => result === "passed").map(({ test }) => test));
  return {
    file,
    tests: outcomes.length,
    passed: count(outcomes, "passed"),
    passedRelaxed: failed.filter(({ test }) => mended.has(test)).length,
    skipped: count(outcomes, "skipped"),
    failed: failed.filter(({ test }) => !mended.has(test)),
  };
}

function count(outcomes: readonly Outcome[], result: Outcome["result"]): number {
  return outcomes.filter((outcome) => outcome.result === result).length;
}

function printTable(results: readonly FileResult[]): void {
  console.log(
    "\n| file | tests | passed as is | + words not compared | failed | skipped |\n| --- | ---: | ---: | ---: | ---: | ---: |",
  );
  const row = (name: string, of: readonly FileResult[]) => {
    const sum = (read: (result: FileResult) => number) => of.reduce((total, result) => total + read(result), 0);
    const cells = [
      sum((r) => r.tests),
      sum((r) => r.passed),
      sum((r) => r.passedRelaxed),
      sum((r) => r.failed.length),
      sum((r) => r.skipped),
    ];
    console.log(`| ${[name, ...cells].join(" | ")} |`);
  };
  for (const result of results) row(result.file, [result]);
  row("sum", results);
}

function mutate(): void {
  const baselines = new Map<string, number>();
  // One file that has each feature is enough to show that its count falls.
  for (const { broken, file } of mutations.filter((mutation) => values.break.includes(mutation.broken))) {
    const whole = baselines.get(file) ?? count(pytest(file, { relax: false }), "passed");
    baselines.set(file, whole);
    const rest = count(pytest(file, { relax: false, broken }), "passed");
    console.log(`without ${broken}: ${file} ${whole} -> ${rest}`);
    if (rest >= whole) process.exitCode = 1;
  }
}

const mutationFiles = {
  auth: "test_security.py",
  stream: "test_compat_anthropic.py",
  usage: "test_compat_anthropic.py",
  stop: "test_compat_anthropic.py",
  timings: "test_metrics.py",
  errors: "test_infill.py",
} as const;
const mutations = breakable.map((broken) => ({ broken, file: mutationFiles[broken] }));

install();
if (values.mutate) mutate();
else {
  const results: FileResult[] = [];
  for (const file of values.file ?? suiteFiles) {
    results.push(runFile(file));
    const { passed, passedRelaxed, tests: all } = results.at(-1)!;
    console.error(`${file}: ${passed} + ${passedRelaxed} of ${all}`);
  }
  printTable(results);
  for (const { file, tests: all, because } of excluded) console.log(`not run: ${file} (${all}): ${because}`);
  if (values.json !== undefined)
    writeFileSync(values.json, `${JSON.stringify({ peer, results, excluded }, null, 2)}\n`);
}
