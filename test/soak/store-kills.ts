/** A process that writes to a store is killed, again and again: the store always opens, with all that was acknowledged. */
import assert from "node:assert/strict";
import { spawn } from "node:child_process";
import { once } from "node:events";
import { mkdtemp, readdir, rm, stat } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { createInterface } from "node:readline";
import { fileURLToPath } from "node:url";
import { KvStore } from "../../src/engine/store/kv-store.ts";
import { randomNumbers } from "../small-model.ts";
import { hasConversation, versionOf } from "../store-content.ts";

export interface KillCounts {
  rounds: number;
  acknowledged: number;
  checked: number;
  /** Times that something was cut off behind the last COMMIT. */
  cutTails: number;
}

const writer = fileURLToPath(new URL("./store-writer.ts", import.meta.url));
const segmentBytes = 96 << 10;

export async function killWriters({ rounds, seed }: { rounds: number; seed: number }): Promise<KillCounts> {
  const directory = await mkdtemp(join(tmpdir(), "freehold-kills-"));
  const random = randomNumbers(seed);
  const counts: KillCounts = { rounds: 0, acknowledged: 0, checked: 0, cutTails: 0 };
  const entries = new Map<string, number>();
  const conversations = new Set<string>();
  try {
    for (; counts.rounds < rounds; counts.rounds++) {
      const lines = await runAndKill(directory, seed * 1000 + counts.rounds + 1, Math.floor(random() * 120));
      counts.acknowledged += lines.length;
      for (const line of lines) {
        const [kind, name, number] = line.split(" ");
        if (kind === "entry") entries.set(`entry ${name}`, Number(number));
        else conversations.add(`${name} ${number}`);
      }
      await check(directory, entries, conversations, counts, `seed ${seed}, round ${counts.rounds}`);
    }
  } finally {
    await rm(directory, { recursive: true, force: true });
  }
  return counts;
}

/** Starts a writer and kills it behind its n-th message: an acknowledgement, or that a group is half written. */
async function runAndKill(directory: string, seed: number, messages: number): Promise<string[]> {
  const child = spawn(process.execPath, ["--no-warnings", writer, directory, `${seed}`, `${segmentBytes}`], {
    stdio: ["ignore", "pipe", "inherit"],
  });
  const exit = once(child, "exit");
  const lines: string[] = [];
  let heard = -1; // "ready" is no message
  for await (const line of createInterface(child.stdout)) {
    if (line !== "ready" && line !== "writing") lines.push(line);
    if (++heard >= messages) child.kill("SIGKILL");
  }
  const [, signal] = await exit;
  assert.equal(signal, "SIGKILL", `the writer of seed ${seed} ended by itself`);
  return lines;
}

async function check(
  directory: string,
  entries: ReadonlyMap<string, number>,
  conversations: ReadonlySet<string>,
  counts: KillCounts,
  where: string,
): Promise<void> {
  const before = await segmentBytesIn(directory);
  const store = await KvStore.open({ directory, budgetBytes: 1 << 30, segmentBytes, reserveBytes: 0, now: () => 0 });
  assert.equal(store.state, "on", `${where}: ${store.reason}`);
  if ((await segmentBytesIn(directory)) < before) counts.cutTails++;
  for (const [id, version] of entries) {
    const found = await versionOf(store, id);
    assert.ok(found !== undefined && found >= version, `${where}: ${id} is ${found}, ${version} was acknowledged`);
    counts.checked++;
  }
  for (const text of conversations) {
    const [c, length] = text.split(" ").map(Number);
    assert.equal(await hasConversation(store, c!, length!), true, `${where}: conversation ${text}`);
    counts.checked++;
  }
  await store.close();
}

async function segmentBytesIn(directory: string): Promise<number> {
  const names = (await readdir(directory)).filter((name) => name.endsWith(".v4k"));
  const sizes = await Promise.all(names.map(async (name) => (await stat(join(directory, name))).size));
  return sizes.reduce((sum, size) => sum + size, 0);
}
