/**
 * One bit after another is turned in the files of a prefix cache of a small model: a prompt finds what it found before, or less, and
 * the logits are bitwise those without a cache.
 */
import assert from "node:assert/strict";
import { mkdtemp, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { assertResumed, coldLogits, computeConversation, openOnDisk } from "../cached-conversations.ts";
import { randomNumbers, type SmallModelName, smallConfigs, smallModel } from "../small-model.ts";
import { damagedAt, readAll, restore } from "./store-flips.ts";

export interface CacheFlipCounts {
  flips: number;
  /** Turned bits because of which a prompt found less. */
  misses: number;
  cachedTokens: number;
}

interface Task {
  readonly rounds: number;
  readonly seed: number;
  readonly model: SmallModelName;
}

/** Numbers and lengths; the second and third begin like the first. */
const conversations = [
  [0, 300],
  [1, 260],
  [2, 420],
  [3, 128],
] as const;

export async function flipCacheBits({ rounds, seed, model }: Task): Promise<CacheFlipCounts> {
  const directory = await mkdtemp(join(tmpdir(), "freehold-cache-flips-"));
  const random = randomNumbers(seed);
  const counts = { flips: 0, misses: 0, cachedTokens: 0 };
  const { runner, device } = await smallModel(smallConfigs[model]);
  try {
    const cache = await openOnDisk(runner, directory);
    for (const [c, length] of conversations) await computeConversation(cache, runner, c, length);
    await cache.close();
    const expected = await Promise.all(conversations.map(([c, length]) => coldLogits(runner, c, length)));
    const images = await readAll(directory);
    for (; counts.flips < rounds; counts.flips++) {
      const { name, bytes, what } = damagedAt(images, random);
      await writeFile(join(directory, name), bytes);
      const i = Math.floor(random() * conversations.length);
      const where = `${model}, seed ${seed}, flip ${counts.flips}: ${what}`;
      const opened = await openOnDisk(runner, directory);
      assert.equal(opened.counters.diskState, "on", `${where}: ${opened.diskReason}`);
      const known = await assertResumed(opened, runner, conversations[i]!, expected[i]!, where);
      counts.cachedTokens += known;
      if (known < conversations[i]![1]) {
        counts.misses++;
        assert.ok(opened.counters.corruptRecords > 0, `${where}: ${known} tokens were known and no damage was counted`);
      }
      await opened.close();
      await restore(directory, images);
    }
  } finally {
    device[Symbol.dispose]();
    await rm(directory, { recursive: true, force: true });
  }
  return counts;
}
