/**
 * Runs real coding agents, as npm has them, against the server, each in a home and a project folder of its own:
 *   scripted   the model's answers are fixed, so the agent must call its tool for real; counts what each turn computes anew
 *   seed       the embedded model answers; no crash and no protocol error is asked for, not sense
 * Run: npm run test:agents [-- --only Codex --model scripted]. The agents are large (1.5 GB) and stay in test/agents/.installed.
 */
import { execFileSync, spawn } from "node:child_process";
import { existsSync, mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { parseArgs } from "node:util";
import { type Agent, agents } from "./agents.ts";
import { type ReportedTurn, startScripted, startSeed, type TestServer } from "./servers.ts";

const { values } = parseArgs({
  options: {
    only: { type: "string" },
    model: { type: "string", default: "scripted,seed" },
    json: { type: "boolean", default: false },
    verbose: { type: "boolean", default: false },
  },
});

const commands = ["printf do > made.txt", "printf ne >> made.txt", "cat made.txt"];
const prompt = "Make a file made.txt that holds the word done. Use the shell.";
const timeLimitMs = 180_000;

interface Outcome {
  readonly agent: string;
  readonly version: string;
  readonly model: string;
  readonly exitCode: number | null;
  /** Whether the scripted call was carried out. */
  readonly madeFile: boolean;
  readonly requests: number;
  readonly errors: readonly string[];
  readonly turns: readonly ReportedTurn[];
  readonly seconds: number;
}

const results: Outcome[] = [];
const chosen = agents.filter(({ name }) => values.only === undefined || values.only.split(",").includes(name));
for (const agent of chosen) {
  install(agent);
  for (const model of values.model.split(",")) {
    const server = await (model === "scripted" ? startScripted(commands) : startSeed());
    try {
      const outcome = await runAgent(agent, model, server);
      results.push(outcome);
      if (!values.json) print(outcome);
    } finally {
      await server.close();
    }
  }
}
if (values.json) console.log(JSON.stringify(results, undefined, 2));
process.exitCode = results.every(isGood) ? 0 : 1;

function isGood({ model, exitCode, madeFile, errors, requests, turns }: Outcome): boolean {
  const isStable = turns.every(({ repeated = 1 }) => repeated === 1);
  return errors.length === 0 && requests > 0 && isStable && (model === "seed" || (exitCode === 0 && madeFile));
}

function folderOf({ package: name, version }: Agent): string {
  return join(import.meta.dirname, ".installed", `${name.replaceAll("/", "+")}@${version}`);
}

function install(agent: Agent): void {
  const folder = folderOf(agent);
  if (existsSync(join(folder, "node_modules/.bin", agent.bin))) return;
  console.error(`installing ${agent.package}@${agent.version}`);
  mkdirSync(folder, { recursive: true });
  writeFileSync(join(folder, "package.json"), '{"private":true}');
  const args = ["install", "--no-audit", "--no-fund", `${agent.package}@${agent.version}`];
  execFileSync("npm", args, { cwd: folder, stdio: ["ignore", "ignore", "inherit"] });
}

async function runAgent(agent: Agent, model: string, server: TestServer): Promise<Outcome> {
  const root = mkdtempSync(join(tmpdir(), "freehold-agent-"));
  try {
    const [home, project] = ["home", "project"].map((name) => join(root, name));
    for (const folder of [home!, project!]) mkdirSync(folder);
    execFileSync("git", ["init", "-q"], { cwd: project });
    const task = { home: home!, prompt, ...server.address };
    const { args, env = {} } = agent.prepare(task);
    const started = performance.now();
    const exitCode = await execute(join(folderOf(agent), "node_modules/.bin", agent.bin), args, project!, {
      ...env,
      HOME: home!,
      PATH: process.env.PATH!,
      CI: "1",
    });
    const seconds = (performance.now() - started) / 1000;
    const made = join(project!, "made.txt");
    return {
      agent: agent.name,
      version: agent.version,
      model,
      exitCode,
      madeFile: existsSync(made) && readFileSync(made, "utf8") === "done",
      ...(await server.report()),
      seconds,
    };
  } finally {
    rmSync(root, { recursive: true, force: true });
  }
}

/** The exit status; null when the agent did not end in time and was killed. */
function execute(
  program: string,
  args: readonly string[],
  cwd: string,
  env: Record<string, string>,
): Promise<number | null> {
  return new Promise((resolve, reject) => {
    const output = values.verbose ? "inherit" : "ignore";
    const child = spawn(program, args, { cwd, env, stdio: ["ignore", output, output], timeout: timeLimitMs });
    child.on("error", reject);
    child.on("exit", resolve);
  });
}

function print(outcome: Outcome): void {
  const { agent, version, model, exitCode, madeFile, requests, errors, turns, seconds } = outcome;
  const verdict = isGood(outcome) ? "ok  " : "FAIL";
  const file = model === "scripted" ? `, file ${madeFile ? "made" : "missing"}` : "";
  console.log(
    `${verdict} ${agent} ${version} ${model}: exit ${exitCode}${file}, ${requests} requests, ${seconds.toFixed(1)} s`,
  );
  for (const { prompt: tokens, computed, repeated } of turns) {
    const stability = repeated === undefined ? "" : `, repeats ${(100 * repeated).toFixed(2)} % of the turn before`;
    console.log(`       prompt ${tokens} tokens, computed ${computed}${stability}`);
  }
  for (const error of errors) console.log(`       ${error}`);
}
