/** The hand-over of steps between the thread that asks and those that compute. */
import assert from "node:assert/strict";
import { describe, test } from "node:test";
import { ActiveWorkers } from "../../src/device/cpu/active-workers.ts";
import { ControlBlock, controlBytes, mostWorkers, words } from "../../src/device/cpu/control-block.ts";
import { DeviceError } from "../../src/errors.ts";

test("a step is not taken for done when a worker's notice of the step before comes late", async () => {
  const view = new Uint8Array(new SharedArrayBuffer(controlBytes));
  const block = new ControlBlock({ address: 0, bytes: controlBytes, view, free: () => {} }, 1, 0, 0);
  const shared = new Int32Array(view.buffer);
  let isDone = false;
  const step = block.run({ commands: 0, count: 0, scratch: 0, scratchBytes: 0, tokens: 1 }).then(() => {
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

test("more workers than the word of a step can count are refused", () => {
  const view = new Uint8Array(new SharedArrayBuffer(controlBytes));
  const region = { address: 0, bytes: controlBytes, view, free: () => {} };
  new ControlBlock(region, mostWorkers, 0, 0);
  assert.throws(() => new ControlBlock(region, mostWorkers + 1, 0, 0), DeviceError);
});

describe("workers that take part in a step", () => {
  /** Steps of one token on a machine where `milliseconds(workers)` is what one takes; the counts that were chosen. */
  function play(active: ActiveWorkers, steps: number, milliseconds: (workers: number) => number, napsOfAll: number) {
    return Array.from({ length: steps }, () => {
      const workers = active.choose(1);
      active.tell(milliseconds(workers), workers > 1 ? napsOfAll : 0);
      return workers;
    });
  }

  test("all of them, as long as none has to wait for another", () => {
    assert.deepEqual(new Set(play(new ActiveWorkers(4), 5000, () => 1, 0)), new Set([4]));
  });

  test("all of them again after a trial of fewer that took longer", () => {
    const counts = play(new ActiveWorkers(2), 10_000, (workers) => 2 / workers, 5);
    assert.ok(counts.includes(1), "it was tried");
    assert.ok(counts.filter((workers) => workers === 2).length > 9500);
  });

  test("all of them where a worker wakes late once in a long step, as on a quiet machine", () => {
    assert.deepEqual(new Set(play(new ActiveWorkers(2), 1000, (workers) => 74 / workers, 1)), new Set([2]));
  });

  test("a trial that a single long step shows to be in vain ends with it", () => {
    const counts = play(new ActiveWorkers(2), 1000, (workers) => 74 / workers, 5);
    assert.ok(counts.includes(1), "it was tried");
    for (const [i, workers] of counts.entries()) assert.ok(workers === 2 || counts[i + 1] !== 1, `step ${i}`);
  });

  test("fewer beside a busy process, and all when it has gone", () => {
    for (const all of [2, 3, 16]) {
      const active = new ActiveWorkers(all);
      const beside = play(active, 3000, (workers) => (workers === all ? 5 : 1 + 1 / workers), 50);
      assert.ok(beside.slice(500).filter((workers) => workers < all).length > 2300, `${all} workers`);
      const after = play(active, 3000 * all, (workers) => 1 + 1 / workers, 0);
      assert.equal(after.at(-1), all);
    }
  });

  test("all of them for many tokens at once", () => {
    const active = new ActiveWorkers(2);
    play(active, 1000, (workers) => (workers === 2 ? 5 : 1), 50);
    assert.equal(active.choose(1), 1);
    assert.equal(active.choose(512), 2);
  });
});
