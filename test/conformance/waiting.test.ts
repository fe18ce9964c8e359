/** A worker that waits long for another one leaves its core to others. */
import assert from "node:assert/strict";
import { once } from "node:events";
import { test } from "node:test";
import { Worker } from "node:worker_threads";
import { commandSlots } from "../../src/device/cpu/commands.ts";
import { controlBytes, cursorBytes, words } from "../../src/device/cpu/control-block.ts";
import { addonPath, loadAddon } from "../../src/engine/kernels/native-host.ts";

const program = `
  const { parentPort, workerData } = require("node:worker_threads");
  const { work } = require(workerData.addon);
  parentPort.postMessage("begins");
  parentPort.postMessage(work(workerData.control, 0, 0, 1));`;

const skip = process.platform === "darwin" && "macOS has no public call to sleep on a word";

test("a worker sleeps while the other one has not come to the barrier, and wakes when it must go", {
  skip,
}, async () => {
  const control = new Int32Array(new SharedArrayBuffer(controlBytes));
  const command = new Float64Array(new SharedArrayBuffer(8 * commandSlots));
  const cursors = new Uint8Array(new SharedArrayBuffer(cursorBytes(2)));
  const address = (array: Int32Array | Float64Array | Uint8Array) => loadAddon().address(array as Uint8Array);
  command[1] = 1; // a barrier before it
  control[words.workers] = 2;
  new Float64Array(control.buffer, 16, 5).set([address(command), 1, 0, 0, address(cursors)]);
  const step = 256 + 2; // step 1 of two workers, of which one never comes
  control[words.sequence] = step;

  const worker = new Worker(program, { eval: true, workerData: { addon: addonPath(), control: address(control) } });
  assert.deepEqual(await once(worker, "message"), ["begins"]);
  const before = process.cpuUsage();
  await new Promise((then) => setTimeout(then, 600));
  const { user, system } = process.cpuUsage(before);
  const ended = once(worker, "message");
  control[words.quit] = 1;
  assert.deepEqual(await ended, [2 * step], "it was not the last to finish");
  assert.equal(control[words.naps], 1);
  assert.ok(user + system < 100_000, `it took ${(user + system) / 1000} ms of a processor in 600 ms`);
});
