/** One bit after another is turned in the files of a store: what is read is what was written, or nothing. */
import assert from "node:assert/strict";
import { mkdtemp, readdir, readFile, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { KvStore } from "../../src/engine/store/kv-store.ts";
import { randomNumbers } from "../small-model.ts";
import { entryOf, putConversation, readableRecords } from "../store-content.ts";

export interface FlipCounts {
  flips: number;
  /** Turned bits that made a record, or several, a miss. */
  misses: number;
  /** Those that changed nothing that is read: padding, footers, MANIFEST, COMMIT. */
  harmless: number;
}

export async function flipBits({ rounds, seed }: { rounds: number; seed: number }): Promise<FlipCounts> {
  const directory = await mkdtemp(join(tmpdir(), "freehold-flips-"));
  const random = randomNumbers(seed);
  const counts = { flips: 0, misses: 0, harmless: 0 };
  const open = () =>
    KvStore.open({ directory, budgetBytes: 1 << 30, segmentBytes: 24 << 10, reserveBytes: 0, now: () => 0 });
  try {
    const store = await open();
    for (let c = 0; c < 10; c++) {
      await store.group((put) => putConversation(store, put, c, 300 + 70 * c));
      await store.group((put) => put(entryOf(`call ${c}`, c)));
    }
    const right = await readableRecords(store);
    await store.close();
    const images = await readAll(directory);
    for (; counts.flips < rounds; counts.flips++) {
      const { name, bytes, what } = damagedAt(images, random);
      const where = `seed ${seed}, flip ${counts.flips}: ${what}`;
      await writeFile(join(directory, name), bytes);
      const opened = await open();
      assert.equal(opened.state, "on", `${where}: ${opened.reason}`);
      const found = await readableRecords(opened);
      for (const [key, bytes] of found) assert.ok(right.get(key)?.equals(bytes), `${where}: wrong bytes were given`);
      if (found.size < right.size) {
        counts.misses++;
        assert.ok(opened.counters.corruptRecords > 0, `${where}: a record is missing and no damage was counted`);
      } else counts.harmless++;
      await opened.close();
      await restore(directory, images);
    }
  } finally {
    await rm(directory, { recursive: true, force: true });
  }
  return counts;
}

export async function readAll(directory: string): Promise<Map<string, Buffer>> {
  const names = (await readdir(directory)).sort();
  return new Map(await Promise.all(names.map(async (name) => [name, await readFile(join(directory, name))] as const)));
}

/** Opening a damaged store repairs it: files may have been cut, written or removed. */
export async function restore(directory: string, images: ReadonlyMap<string, Buffer>): Promise<void> {
  for (const name of await readdir(directory)) if (!images.has(name)) await rm(join(directory, name));
  for (const [name, bytes] of images) {
    const found = await readFile(join(directory, name)).catch(() => undefined);
    if (!found?.equals(bytes)) await writeFile(join(directory, name), bytes);
  }
}

/** One of the files with one bit turned, anywhere in all of them. */
export function damagedAt(images: ReadonlyMap<string, Buffer>, random: () => number) {
  const total = [...images.values()].reduce((sum, { length }) => sum + length, 0);
  let at = Math.floor(random() * total);
  const bit = Math.floor(random() * 8);
  for (const [name, image] of images) {
    if (at < image.length) {
      const bytes = Buffer.from(image);
      bytes[at]! ^= 1 << bit;
      return { name, bytes, what: `bit ${bit} of byte ${at} of ${name}` };
    }
    at -= image.length;
  }
  throw new RangeError("There is no file to damage");
}
