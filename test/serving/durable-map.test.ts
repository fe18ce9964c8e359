/** The map that outlives its process, on a store that others share. */
import assert from "node:assert/strict";
import { mkdtemp, readdir, readFile, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { describe, test } from "node:test";
import fc from "fast-check";
import { DurableMap } from "../../src/engine/cache/durable-map.ts";
import { KvStore } from "../../src/engine/store/kv-store.ts";

async function inDirectory(work: (directory: string) => Promise<void>): Promise<void> {
  const directory = await mkdtemp(join(tmpdir(), "freehold-map-"));
  try {
    await work(directory);
  } finally {
    await rm(directory, { recursive: true });
  }
}

async function openMaps(directory: string) {
  const store = await KvStore.open({ directory, budgetBytes: 1 << 24, now: () => 0, reserveBytes: 0 });
  const calls = new DurableMap(store, { type: "toolmap", mostBytes: 1 << 20 });
  const texts = new DurableMap(store, { type: "textindex", mostBytes: 1 << 20 });
  const close = async () => {
    await Promise.all([calls.flush(), texts.flush()]);
    await store.close();
  };
  return { store, calls, texts, close };
}

const textOf = (bytes: Uint8Array | undefined) => bytes && String(Buffer.from(bytes));

const ids = [..."abcdefghijkl"];

describe("the durable map", () => {
  test("gives back the last value of an id, of its own namespace alone, also after a restart", () =>
    inDirectory(async (directory) => {
      let maps = await openMaps(directory);
      for (let i = 0; i < 50; i++) maps.calls.put("a", `call_${i % 20}`, Buffer.from(`value ${i}`));
      maps.texts.put("a", "call_1", Buffer.from("another map"));
      assert.equal(textOf(await maps.calls.get("a", "call_1")), "value 41");
      assert.equal(await maps.calls.get("b", "call_1"), undefined);
      await maps.close();
      maps = await openMaps(directory);
      for (let i = 30; i < 50; i++) assert.equal(textOf(await maps.calls.get("a", `call_${i % 20}`)), `value ${i}`);
      assert.equal(textOf(await maps.texts.get("a", "call_1")), "another map");
      assert.equal(await maps.calls.get("b", "call_1"), undefined);
      await maps.close();
    }));

  test("forgets a namespace in memory and in every file", () =>
    inDirectory(async (directory) => {
      const { calls, store, close } = await openMaps(directory);
      calls.put("a", "call", Buffer.from("the secret of a"));
      calls.put("b", "call", Buffer.from("the secret of b"));
      await calls.flush();
      calls.forget("a");
      assert.equal(await store.forget(calls.root("a")), true);
      assert.equal(await calls.get("a", "call"), undefined);
      await close();
      const names = await readdir(directory);
      const files = await Promise.all(names.map((name) => readFile(join(directory, name), "latin1")));
      assert.doesNotMatch(files.join(), /secret of a/);
      assert.match(files.join(), /secret of b/);
    }));

  test("that is full on disk leaves other maps of the same store alone", () =>
    inDirectory(async (directory) => {
      let maps = await openMaps(directory);
      maps.calls.put("a", "call", Buffer.from("kept"));
      for (let i = 0; i < 40; i++) maps.texts.put("a", `${i}`, new Uint8Array(100_000).fill(i));
      await maps.close();
      maps = await openMaps(directory);
      assert.equal(textOf(await maps.calls.get("a", "call")), "kept");
      assert.equal((await maps.texts.get("a", "0"))?.at(0), undefined);
      assert.equal((await maps.texts.get("a", "39"))?.at(0), 39);
      await maps.close();
    }));

  test("holds a bounded number of bytes, forgets what was used longest ago, and nothing longer than an eighth", () =>
    fc.assert(
      fc.asyncProperty(
        fc.array(fc.tuple(fc.boolean(), fc.constantFrom(...ids), fc.nat(400)), { maxLength: 40 }),
        async (steps) => {
          const map = new DurableMap(undefined, { type: "toolmap", mostBytes: 1000 });
          map.put("n", "huge", new Uint8Array(126));
          assert.equal(await map.get("n", "huge"), undefined);
          const model = new Map<string, number>();
          for (const [isPut, id, size] of steps) {
            const length = isPut ? Math.min(size, 125) : model.get(id);
            if (isPut) map.put("n", id, new Uint8Array(length!));
            else assert.equal((await map.get("n", id))?.length, length);
            model.delete(id);
            if (length !== undefined) model.set(id, length);
            const total = () => [...model.values()].reduce((sum, each) => sum + each, 0);
            for (const oldest of [...model.keys()]) if (total() > 1000) model.delete(oldest);
          }
          for (const id of ids) assert.equal((await map.get("n", id))?.length, model.get(id));
        },
      ),
    ));
});
