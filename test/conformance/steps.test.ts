/** The hand-over of steps between the thread that asks and those that compute. */
import assert from "node:assert/strict";
import { test } from "node:test";
import { ControlBlock, controlBytes, words } from "../../src/device/cpu/control-block.ts";

test("a step is not taken for done when a worker's notice of the step before comes late", async () => {
  const view = new Uint8Array(new SharedArrayBuffer(controlBytes));
  const block = new ControlBlock({ address: 0, bytes: controlBytes, view, free: () => {} }, 1, 0, 0);
  const shared = new Int32Array(view.buffer);
  let isDone = false;
  const step = block.run({ commands: 0, count: 0, scratch: 0, scratchBytes: 0 }).then(() => {
    isDone = true;
  });
  const turns = async () => {
    for (let turn = 0; turn < 20; turn++) await new Promise(setImmediate);
  };
  await turns();
  // As a worker that was preempted between counting its last step and telling so.
  assert.equal(Atomics.notify(shared, words.done), 1, "the step waits");
  await turns();
  assert.equal(isDone, false);
  Atomics.add(shared, words.done, 1);
  Atomics.notify(shared, words.done);
  await step;
});
