/** The store of records: what was acknowledged is there, what is damaged is a miss, what the disk refuses stops nothing. */
import assert from "node:assert/strict";
import { describe, test } from "node:test";
import { crc32 } from "node:zlib";
import fc from "fast-check";
import { KvStore, type StoreOptions } from "../../src/engine/store/kv-store.ts";
import { rootKey } from "../../src/engine/store/record-keys.ts";
import { MemoryFiles } from "../memory-files.ts";
import { randomNumbers } from "../small-model.ts";
import {
  entryOf,
  hasConversation,
  putConversation,
  readableRecords,
  recordsOf,
  root,
  versionOf,
} from "../store-content.ts";

interface Clock {
  ms: number;
}

function open(files: MemoryFiles, options: Partial<StoreOptions> = {}, clock: Clock = { ms: 0 }): Promise<KvStore> {
  const defaults = { directory: "/kv", budgetBytes: 64 << 20, segmentBytes: 16 << 10, reserveBytes: 0 };
  return KvStore.open({ ...defaults, files, now: () => clock.ms, ...options });
}

const full = (): never => {
  throw Object.assign(new Error("ENOSPC: no space left on device"), { code: "ENOSPC" });
};

/** Conversations of 100 to 700 tokens and entries, in groups. */
async function fill(store: KvStore, conversations: number): Promise<void> {
  for (let c = 0; c < conversations; c++) {
    assert.equal(await store.group((put) => putConversation(store, put, c, 100 + ((c * 137) % 600))), true);
    assert.equal(await store.group((put) => put(entryOf(`call ${c}`, c))), true);
  }
}

async function isFilled(store: KvStore, conversations: number): Promise<void> {
  for (let c = 0; c < conversations; c++) {
    assert.equal(await hasConversation(store, c, 100 + ((c * 137) % 600)), true, `conversation ${c}`);
    assert.equal(await versionOf(store, `call ${c}`), c);
  }
}

describe("the store of records", () => {
  test("gives back what was written, in this process and after it was opened again", async () => {
    const files = new MemoryFiles();
    const store = await open(files);
    assert.equal(store.state, "on");
    await fill(store, 30);
    await isFilled(store, 30);
    await store.close();
    const again = await open(files);
    await isFilled(again, 30);
    assert.ok([...files.files.keys()].length > 4, "several segments");
    assert.equal(again.counters.corruptRecords, 0);
  });

  test("names nothing of a group whose work failed, and goes on with the next one", async () => {
    const files = new MemoryFiles();
    const store = await open(files);
    await fill(store, 2);
    const before = await readableRecords(store);
    await assert.rejects(
      store.group(async (put) => {
        await put(entryOf("lost", 1));
        throw new RangeError("the device died");
      }),
      RangeError,
    );
    assert.equal(await versionOf(store, "lost"), undefined);
    assert.equal(await store.group((put) => put(entryOf("next", 1))), true);
    const again = await open(files);
    assert.equal(await versionOf(again, "lost"), undefined);
    assert.equal((await readableRecords(again)).size, before.size + 1);
  });

  test("after a loss of power at any write all that was acknowledged is there, and nothing is wrong", async () => {
    for (let seed = 1; seed <= 600; seed++) {
      const random = randomNumbers(seed * 7919);
      let files = new MemoryFiles();
      const acknowledged = new Map<string, number>();
      for (let life = 0; life < 4; life++) {
        const store = await open(files, { segmentBytes: 6 << 10 });
        assert.equal(store.state, "on", `seed ${seed}, life ${life}: ${store.reason}`);
        for (const [id, version] of acknowledged) {
          const found = await versionOf(store, id);
          assert.ok(found !== undefined && found >= version, `seed ${seed}, life ${life}: ${id} ${found} ${version}`);
        }
        let left = Math.floor(random() * 60);
        files.beforeChange = () => {
          if (left-- <= 0) throw Object.assign(new Error("the power is gone"), { code: "EIO" });
        };
        for (let i = 0; i < 12 && left > 0; i++) {
          const id = `entry ${Math.floor(random() * 6)}`;
          const version = 1 + life * 100 + i;
          if (await store.group((put) => put(entryOf(id, version)))) acknowledged.set(id, version);
        }
        files = files.afterPowerLoss(random);
      }
    }
  });

  test("a full disk makes it read-only, what is there stays readable, and later it writes again", async () => {
    const files = new MemoryFiles();
    const clock = { ms: 0 };
    const store = await open(files, {}, clock);
    await fill(store, 5);
    let bytes = 3000;
    files.beforeChange = (operation, length) => {
      bytes -= length;
      if (operation === "write" && bytes < 0) full();
    };
    assert.equal(await store.group((put) => putConversation(store, put, 7, 900)), false);
    assert.equal(store.state, "read-only");
    assert.match(store.reason, /ENOSPC/);
    await isFilled(store, 5);
    files.beforeChange = () => {};
    assert.equal(await store.group((put) => put(entryOf("soon", 1))), false, "it waits before it tries again");
    clock.ms += 30_000;
    assert.equal(await store.group((put) => put(entryOf("later", 1))), true);
    assert.equal(store.state, "on");
    const again = await open(files);
    await isFilled(again, 5);
    assert.equal(await versionOf(again, "later"), 1);
    assert.equal(await hasConversation(again, 7, 900), false);
  });

  test("keeps the last bytes of a disk free for others", async () => {
    const files = new MemoryFiles();
    const clock = { ms: 0 };
    const store = await open(files, { reserveBytes: 100 << 20 }, clock);
    files.free = 99 << 20;
    assert.equal(await store.group((put) => put(entryOf("a", 1))), false);
    assert.match(store.reason, /99 MiB are free/);
    files.free = 101 << 20;
    clock.ms += 30_000;
    assert.equal(await store.group((put) => put(entryOf("a", 1))), true);
  });

  test("every kind of failing operation leaves a store that starts with all that was acknowledged", async () => {
    for (const failing of ["create", "write", "sync", "rename", "remove", "syncDirectory", "truncate"]) {
      for (let nth = 1; nth <= 12; nth++) {
        const files = new MemoryFiles();
        const store = await open(files, { segmentBytes: 4 << 10 });
        let count = 0;
        files.beforeChange = (operation) => {
          if (operation === failing && ++count >= nth) full();
        };
        const acknowledged: string[] = [];
        for (let i = 0; i < 25; i++)
          if (await store.group((put) => put(entryOf(`${i % 7}`, i)))) acknowledged.push(`${i % 7} ${i}`);
        files.beforeChange = () => {};
        const again = await open(files);
        assert.equal(again.state, "on", `${failing} ${nth}`);
        for (const text of acknowledged) {
          const [id, version] = text.split(" ");
          assert.ok(((await versionOf(again, id!)) ?? -1) >= Number(version), `${failing} ${nth}: ${text}`);
        }
      }
    }
  });

  test("a budget is kept by forgetting what was used longest ago; what is left is whole", async () => {
    const files = new MemoryFiles();
    const store = await open(files, { budgetBytes: 200 << 10 });
    for (let c = 0; c < 120; c++) {
      await store.group((put) => putConversation(store, put, c, 100 + ((c * 137) % 600)));
      for (const record of recordsOf(0, 100)) {
        const found = store.index.get(record);
        assert.ok(found, `the first conversation is used all the time and stays (${c})`);
        store.index.use(found);
      }
      assert.ok(store.totalBytes <= 200 << 10, `${store.totalBytes} bytes after ${c}`);
    }
    assert.ok(store.counters.collected > 5, "segments were collected");
    assert.equal(await hasConversation(store, 119, 100 + ((119 * 137) % 600)), true);
    assert.equal(await hasConversation(store, 5, 100 + ((5 * 137) % 600)), false);
    for (const frontier of store.index.frontiers.values()) {
      let { parent, position } = frontier;
      for (let rest = Math.floor(position / 128); rest > 0; rest--) {
        const block = store.index.blocks.get(parent);
        assert.ok(block, "every frontier has all blocks of its path");
        ({ parent, position } = block);
      }
    }
    const onDisk = [...files.files.values()].reduce((sum, { bytes }) => sum + bytes.length, 0);
    assert.ok(onDisk <= (200 << 10) + 500, `${onDisk} bytes in files`);
  });

  test("entries that are put anew and anew take no more room: the dead are collected, the living kept", async () => {
    const files = new MemoryFiles();
    const store = await open(files, { segmentBytes: 8 << 10 });
    for (let i = 0; i < 600; i++) await store.group((put) => put(entryOf(`${i % 10}`, i)));
    for (let id = 0; id < 10; id++) assert.equal(await versionOf(store, `${id}`), 590 + id);
    assert.ok(store.totalBytes < 40 << 10, `${store.totalBytes} bytes`);
    const again = await open(files);
    for (let id = 0; id < 10; id++) assert.equal(await versionOf(again, `${id}`), 590 + id);
  });

  test("a record that is read while its segment is collected is found at its new place", async () => {
    const files = new MemoryFiles();
    const store = await open(files, { segmentBytes: 8 << 10 });
    await store.group((put) => put(entryOf("kept", 1)));
    const record = [...store.index.entries.values()][0]!;
    for (let i = 0; i < 100; i++) await store.group((put) => put(entryOf("other", i)));
    assert.notEqual(store.index.get(record), record, "it was moved");
    assert.deepEqual(Buffer.from((await store.read(record))!), Buffer.from(entryOf("kept", 1).payload!));
  });

  test("what a namespace forgets is in no file any more, also when the process ends before all is rewritten", async () => {
    for (let stop = 0; stop < 12; stop++) {
      const files = new MemoryFiles();
      const store = await open(files);
      await fill(store, 12);
      let left = stop;
      files.beforeChange = () => {
        if (stop < 11 && left-- <= 0) full();
      };
      const isDone = await store.forget(root);
      files.beforeChange = () => {};
      const again = await open(files);
      await again.group((put) => put({ ...entryOf("x", 1), key: rootKey("other") }));
      const found = await readableRecords(again);
      if (isDone) assert.equal(found.size, 1, `stop ${stop}`);
      const texts = [...files.files.values()].map(({ bytes }) => bytes.toString("latin1")).join();
      const secret = Buffer.from(recordsOf(3, 511).at(0)!.payload!).toString("latin1");
      if (isDone) assert.equal(texts.includes(secret), false, `stop ${stop}`);
    }
  });
});

describe("damage of the store", () => {
  test("any bytes in any file: it starts, and what it gives is what was written", async () => {
    const files = new MemoryFiles();
    const store = await open(files, { segmentBytes: 8 << 10 });
    await fill(store, 12);
    const right = await readableRecords(store);
    const images = new Map([...files.files].map(([path, { bytes }]) => [path, Buffer.from(bytes)]));
    const mutation = fc.record({
      file: fc.nat(images.size - 1),
      kind: fc.constantFrom("flip", "cut", "overwrite", "repeat", "empty", "insert", "swap"),
      at: fc.double({ min: 0, max: 1, noNaN: true }),
      bytes: fc.uint8Array({ minLength: 1, maxLength: 200 }),
    });
    await fc.assert(
      fc.asyncProperty(fc.array(mutation, { minLength: 1, maxLength: 5 }), async (mutations) => {
        const damaged = new MemoryFiles();
        for (const [path, bytes] of images)
          damaged.files.set(path, { bytes: Buffer.from(bytes), durable: Buffer.from(bytes), writes: [] });
        const all = [...damaged.files.values()];
        for (const { file, kind, at, bytes } of mutations) {
          const content = all[file]!;
          const place = Math.floor(at * Math.max(1, content.bytes.length));
          content.bytes = mutated(content.bytes, kind, place, Buffer.from(bytes), all);
        }
        const again = await open(damaged);
        assert.equal(again.state, "on", again.reason);
        for (const [key, bytes] of await readableRecords(again))
          assert.ok(right.get(key)?.equals(bytes), "a record with other bytes, or one that was never written");
        assert.equal(await again.group((put) => put(entryOf("after", 3))), true);
        const third = await open(damaged);
        assert.equal(await versionOf(third, "after"), 3, "what is written after the damage is found");
      }),
      { numRuns: 400, seed: 11 },
    );
  });

  test("a lost MANIFEST is made again from the segments; one of a newer version is left alone", async () => {
    const files = new MemoryFiles();
    const store = await open(files);
    await fill(store, 8);
    const manifest = files.files.get("/kv/MANIFEST")!;
    files.files.delete("/kv/MANIFEST");
    await isFilled(await open(files), 8);
    assert.deepEqual(files.files.get("/kv/MANIFEST")!.bytes, manifest.bytes);

    const names = [...files.files.keys()];
    files.files.get("/kv/MANIFEST")!.bytes = manifestOf("freehold-kv 2\nwhatever\n");
    const refused = await open(files);
    assert.equal(refused.state, "off");
    assert.match(refused.reason, /version 2/);
    assert.equal(await refused.group((put) => put(entryOf("a", 1))), false);
    assert.deepEqual([...files.files.keys()], names);
  });

  test("any turned bit of a MANIFEST is damage, not another version", async () => {
    const files = new MemoryFiles();
    await fill(await open(files), 8);
    const { bytes } = files.files.get("/kv/MANIFEST")!;
    for (let bit = 0; bit < 8 * bytes.length; bit++) {
      const turned = Buffer.from(bytes);
      turned[bit >> 3]! ^= 1 << (bit & 7);
      files.files.get("/kv/MANIFEST")!.bytes = turned;
      await isFilled(await open(files), 8);
      assert.deepEqual(files.files.get("/kv/MANIFEST")!.bytes, bytes, `bit ${bit}`);
    }
  });

  test("a directory with other files is not taken", async () => {
    const files = new MemoryFiles();
    await files.open("/kv/thesis.tex", "create");
    const store = await open(files);
    assert.equal(store.state, "off");
    assert.match(store.reason, /thesis\.tex/);
    assert.deepEqual([...files.files.keys()], ["/kv/thesis.tex"]);
  });
});

function manifestOf(text: string): Buffer {
  return Buffer.from(`${text}crc32 ${crc32(text).toString(16).padStart(8, "0")}\n`);
}

function mutated(bytes: Buffer, kind: string, at: number, part: Buffer, all: { bytes: Buffer }[]): Buffer {
  const result = Buffer.from(bytes);
  switch (kind) {
    case "flip":
      if (at < result.length) result[at]! ^= 1 << (part[0]! % 8);
      return result;
    case "cut":
      return result.subarray(0, at);
    case "overwrite":
      part.copy(result, at);
      return result;
    case "repeat":
      return Buffer.concat([result, result.subarray(at)]);
    case "insert":
      return Buffer.concat([result.subarray(0, at), part, result.subarray(at)]);
    case "swap":
      return Buffer.from(all[part[0]! % all.length]!.bytes);
    default:
      return Buffer.alloc(0);
  }
}
