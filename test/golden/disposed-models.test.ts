/**
 * A model that is disposed of while it answers: threads are in the middle of a step then, with the memory that it is about to lose.
 * Every answer ends, whole or with one kind of error, and so does what is asked for afterwards.
 */
import assert from "node:assert/strict";
import { join } from "node:path";
import { describe, test } from "node:test";
import { setTimeout as sleep } from "node:timers/promises";
import { type LoadOptions, loadModel } from "../../src/engine/load-model.ts";
import { DeviceError } from "../../src/errors.ts";

const data = join(import.meta.dirname, "../data");

const devices: readonly LoadOptions[] = [
  { device: "cpu", threads: 2 },
  { device: "cpu", threads: 1 },
  { device: "wasm", threads: 2 },
  { device: "reference" },
  { device: "cpu", isolation: "process" },
];

describe("a model that is disposed of while it answers", () => {
  for (const device of devices) {
    for (const [name, drafting] of [
      ["v4/mtp", "mtp"],
      ["v4.1/dspark", "dspark"],
      ["v4.1/dspark", "off"],
    ] as const) {
      test(`${name} with the drafter ${drafting} on ${JSON.stringify(device)}`, { timeout: 60_000 }, async () => {
        let cut = 0;
        for (const delayMs of [0, 1, 3, 8, 20]) {
          const model = await loadModel(join(data, name), { ...device, drafting, contextLength: 256 });
          const ask = (id: number) => model.complete([1, 2, 3, id], { maxTokens: 200, ignoreEos: true });
          const answers = Promise.allSettled([4, 5, 6].map(ask));
          await sleep(delayMs);
          model[Symbol.dispose]();
          for (const answer of await answers) {
            if (answer.status === "fulfilled") continue;
            cut++;
            assertDisposed(answer.reason);
          }
          await assert.rejects(ask(7), assertDisposed);
          model[Symbol.dispose](); // nothing is left to do
        }
        assert.ok(cut > 0, "no answer was cut off");
      });
    }
  }
});

function assertDisposed(error: unknown): true {
  assert.ok(error instanceof DeviceError && error.code === "disposed", `${error}`);
  return true;
}
