/** What the addon asks of Windows. Run by scripts/test-windows.sh under Windows' Node, once as node.exe and once under another name. */
import assert from "node:assert/strict";
import { spawnSync } from "node:child_process";
import { closeSync, mkdtempSync, openSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { basename, join } from "node:path";
import { after, describe, test } from "node:test";
import { FileSource } from "../../src/engine/file-source.ts";
import { addonPath, loadAddon, NativeHost } from "../../src/engine/kernels/native-host.ts";
import { physicalCores } from "../../src/engine/kernels/physical-cores.ts";
import { loadModel } from "../../src/engine/load-model.ts";
import { ProcessDevice } from "../../src/engine/process-device.ts";
import { DeviceError } from "../../src/errors.ts";

const messages = [{ role: "user" as const, content: "Who are you?" }];
const folder = mkdtempSync(join(tmpdir(), "freehold-windows-"));
after(() => rmSync(folder, { recursive: true }));
const file = join(folder, "weights");
writeFileSync(file, new Uint8Array(100_000).fill(7));

describe(`Windows, in a program named ${basename(process.execPath)}`, () => {
  test("is what this runs on", () => assert.equal(process.platform, "win32"));

  test("maps a file: no byte of it is copied", async () => {
    using host = new NativeHost({ workers: 1 });
    const source = await FileSource.open(file);
    const address = await host.place({ source, offset: 64, length: 1000 });
    assert.ok(address > 65536 && address % 65536 === 64, `${address}`);
    assert.equal(host.copiedBytes, 0);
    await source.close();
  });

  test("maps no more than the file has, and nothing of what is no open file", () => {
    const addon = loadAddon();
    const descriptor = openSync(file, "r");
    const address = addon.map(descriptor, 100_000);
    assert.notEqual(address, 0);
    addon.unmap(address, 100_000);
    assert.equal(addon.map(descriptor, 1_000_000), 0);
    closeSync(descriptor);
    assert.equal(addon.map(descriptor, 100_000), 0);
    assert.equal(addon.map(-1, 100_000), 0);
  });

  test("lets a file go that a model was loaded from", async () => {
    const host = new NativeHost({ workers: 2 });
    const source = await FileSource.open(file);
    await host.place({ source, offset: 0, length: 100_000 });
    await source.close();
    host[Symbol.dispose]();
    for (const started = Date.now(); Date.now() - started < 10_000; await new Promise((then) => setTimeout(then, 10))) {
      try {
        return writeFileSync(file, new Uint8Array(100_000).fill(7)); // refused as long as it is mapped
      } catch {}
    }
    assert.fail("it is still mapped after 10 seconds");
  });

  test("counts the cores that the system has", () => {
    const buffer = new Uint8Array(64 << 10);
    assert.equal(loadAddon().cores(buffer, buffer.length), Number(process.env.FREEHOLD_TEST_CORES));
    assert.equal(loadAddon().cores(buffer, 8), 0, "no room for the answer");
    assert.equal(physicalCores(), Number(process.env.FREEHOLD_TEST_CORES));
  });

  test("answers, in this process and in one of its own, which may die", async () => {
    using here = await loadModel(undefined, { device: "cpu" });
    const { text } = await here.complete({ messages, thinking: { type: "disabled" } });
    assert.match(text, /^I am Freehold seed/);
    using there = await loadModel(undefined, { device: "cpu", isolation: "process" });
    assert.equal((await there.complete({ messages, thinking: { type: "disabled" } })).text, text);
    assert.ok(there.device instanceof ProcessDevice);
    process.kill(there.device.pid!);
    await assert.rejects(
      there.complete({ messages }),
      (error) => error instanceof DeviceError && error.code === "device-process",
    );
  });

  test("tells of a crash in the kernels by the status that it has for it", () => {
    const program = `require(${JSON.stringify(addonPath())}).work(8, 0, 0, 1)`;
    assert.equal(spawnSync(process.execPath, ["--eval", program], { stdio: "ignore" }).status, 0xc0000005);
  });
});
