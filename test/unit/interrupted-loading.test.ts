/** Loading that is interrupted or fails ends soon and leaves nothing behind. */
import assert from "node:assert/strict";
import { mkdtempSync, readdirSync, rmSync, truncateSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, describe, test } from "node:test";
import { FileSource } from "../../src/engine/file-source.ts";
import { loadModel } from "../../src/engine/load-model.ts";

const cases = join(import.meta.dirname, "../data");
const scratch = mkdtempSync(join(tmpdir(), "freehold-loading-"));
after(() => rmSync(scratch, { recursive: true }));

/** Calls `onRead` after each read of a file that gave bytes. */
function watchReads(onRead: () => void): Disposable {
  const { read } = FileSource.prototype;
  FileSource.prototype.read = async function (...place) {
    const bytes = await read.apply(this, place);
    onRead();
    return bytes;
  };
  return { [Symbol.dispose]: () => void Object.assign(FileSource.prototype, { read }) };
}

describe("an aborted signal", () => {
  for (const folder of ["v4/official", "v4.1/engram"])
    for (const device of ["cpu", "reference"])
      test(`ends the loading of ${folder} on ${device} with the read that is made, whichever that is`, async () => {
        let reads = 0;
        let abort = () => {};
        using _ = watchReads(() => {
          reads++;
          abort();
        });
        (await loadModel(join(cases, folder), { device, threads: 1 }))[Symbol.dispose]();
        const all = reads;
        assert.ok(all > 20, `${all} reads`);
        for (let last = 1; last < all; last += 7) {
          const controller = new AbortController();
          reads = 0;
          abort = () => {
            if (reads === last) controller.abort();
          };
          const loading = loadModel(join(cases, folder), { device, threads: 1, signal: controller.signal });
          await assert.rejects(loading, { name: "AbortError" });
          assert.equal(reads, last);
        }
      });

  test("ends a long read before its end, and none is begun after it", async () => {
    const path = join(scratch, "long");
    writeFileSync(path, "");
    truncateSync(path, 300 << 20);
    const controller = new AbortController();
    const source = await FileSource.open(path, controller.signal);
    setImmediate(() => controller.abort());
    await assert.rejects(source.read(0, source.size), { name: "AbortError" });
    await assert.rejects(source.read(0, 1), { name: "AbortError" });
    await source.close();
    await assert.rejects(FileSource.open(path, controller.signal), { name: "AbortError" });
  });
});

const isLinux = process.platform === "linux";
test("a model that cannot be loaded leaves no thread behind", {
  skip: !isLinux && "threads are counted in /proc",
}, async () => {
  const threads = () => readdirSync("/proc/self/task").length;
  const before = threads();
  writeFileSync(join(scratch, "config.json"), "{");
  const broken = [join(scratch, "nowhere"), join(scratch, "nowhere.gguf"), scratch];
  for (const reference of [...broken, ...broken]) {
    await assert.rejects(loadModel(reference, { device: "cpu", threads: 4 }), { name: "ModelError" });
  }
  for (let wait = 0; threads() > before + 4 && wait < 100; wait++)
    await new Promise((resolve) => setTimeout(resolve, 50));
  assert.ok(threads() <= before + 4, `${threads()} threads, ${before} before`);
});
