/**
 * A process that computes with a small model and remembers on disk is killed, again and again: the next one finds all that was
 * acknowledged, and the logits behind it are bitwise those without a cache.
 */
import assert from "node:assert/strict";
import { spawn } from "node:child_process";
import { once } from "node:events";
import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { createInterface } from "node:readline";
import { fileURLToPath } from "node:url";
import type { ModelRunner } from "../../src/engine/model-runner.ts";
import { assertResumed, coldLogits, openOnDisk } from "../cached-conversations.ts";
import { randomNumbers, type SmallModelName, smallConfigs, smallModel } from "../small-model.ts";

export interface CacheKillCounts {
  rounds: number;
  acknowledged: number;
  /** Conversations that were resumed and compared. */
  checked: number;
  tokens: number;
}

interface Task {
  readonly rounds: number;
  readonly seed: number;
  readonly model: SmallModelName;
}

const writer = fileURLToPath(new URL("./cache-writer.ts", import.meta.url));
/** Of earlier rounds; those of the last round are all checked. */
const checkedOfEarlier = 5;

export async function killCacheWriters({ rounds, seed, model }: Task): Promise<CacheKillCounts> {
  const directory = await mkdtemp(join(tmpdir(), "freehold-cache-kills-"));
  const random = randomNumbers(seed);
  const counts = { rounds: 0, acknowledged: 0, checked: 0, tokens: 0 };
  const earlier: (readonly [number, number])[] = [];
  const { runner, device } = await smallModel(smallConfigs[model]);
  try {
    for (; counts.rounds < rounds; counts.rounds++) {
      const child = [directory, model, `${seed * 1000 + counts.rounds + 1}`];
      const latest = await runAndKill(child, 1 + Math.floor(random() * 24));
      counts.acknowledged += latest.length;
      const sample = Array.from(
        { length: earlier.length && checkedOfEarlier },
        () => earlier[Math.floor(random() * earlier.length)]!,
      );
      await check(runner, directory, [...latest, ...sample], counts, `${model}, seed ${seed}, round ${counts.rounds}`);
      earlier.push(...latest);
    }
  } finally {
    device[Symbol.dispose]();
    await rm(directory, { recursive: true, force: true });
  }
  return counts;
}

/** Starts a writer and kills it behind its n-th message: what it acknowledged. */
async function runAndKill(args: readonly string[], messages: number): Promise<(readonly [number, number])[]> {
  const child = spawn(process.execPath, ["--no-warnings", writer, ...args], { stdio: ["ignore", "pipe", "inherit"] });
  const exit = once(child, "exit");
  const acknowledged: (readonly [number, number])[] = [];
  let heard = 0;
  for await (const line of createInterface(child.stdout)) {
    const [c, length] = line.split(" ").map(Number);
    if (length !== undefined) acknowledged.push([c!, length]);
    if (heard++ >= messages) child.kill("SIGKILL");
  }
  const [, signal] = await exit;
  assert.equal(signal, "SIGKILL", `the writer of ${args.join(" ")} ended by itself`);
  return acknowledged;
}

async function check(
  runner: ModelRunner,
  directory: string,
  conversations: readonly (readonly [number, number])[],
  counts: CacheKillCounts,
  where: string,
): Promise<void> {
  const cache = await openOnDisk(runner, directory);
  assert.equal(cache.counters.diskState, "on", `${where}: ${cache.diskReason}`);
  for (const [c, length] of conversations) {
    const expected = await coldLogits(runner, c, length);
    const known = await assertResumed(cache, runner, [c, length], expected, where);
    assert.equal(known, length, `${where}: conversation ${c} was acknowledged`);
    counts.checked++;
    counts.tokens += known;
  }
  await cache.close();
}
