/**
 * Tiny random DeepSeek-V4.1 models against values recorded from NVIDIA NeMo (float32, the whole sequence at once), which were
 * compared with two engines that keep caches: logits and greedy continuations on every body of the kernels, with and without the
 * rounding of caches.
 */
import assert from "node:assert/strict";
import { after, describe, test } from "node:test";
import type { Device } from "../../src/device/device.ts";
import { ReferenceDevice } from "../../src/device/reference/reference-device.ts";
import { ModelRunner } from "../../src/engine/model-runner.ts";
import type { Rounding } from "../../src/model/config.ts";
import { kernelBodiesHere } from "../kernel-devices.ts";
import { assertClose, checkChunks, oneStep, prefill, type Subject } from "./bitwise.ts";
import { firstOtherPosition, labelsToKeep, readRounded, roundedLabels } from "./rounded-codes.ts";
import { loadV41Case, type V41Case, v41Cases } from "./v4.1-case.ts";
import { loadWeights } from "./v4-case.ts";

/** Stated by the recorded cases for a float32 engine. */
const tolerance = 2e-4;
/**
 * With rounded caches, one value on the border of two codes falls to the other side when sums run in another order, and the rows
 * that see it change a little: the references themselves part so by up to 1e-3. Float32 bodies may from the first position on that
 * sees another code than float64 (v4.1-rounding.test.ts shows that those are borders), and in one row of fifty.
 */
const tolerances = { flipped: 1e-3, shareOfFlipped: 0.02 };

/** Stored logits of other roundings than the case's own, and the rows where a float32 engine must agree (section 14). */
const otherLogits: readonly { key: string; rounding: Rounding; rows(golden: V41Case, row: number): boolean }[] = [
  { key: "logits_kvquant", rounding: "caches", rows: (golden, row) => isStable(golden, row) },
  { key: "logits_noquant", rounding: "none", rows: () => true },
  { key: "logits_fullquant", rounding: "caches-and-inputs", rows: () => true },
];

/** A value on the border of two codes may fall either way and then change a selection: those rows are known. */
function isStable({ name, unstableRows }: V41Case, row: number): boolean {
  if (name === "groups-candidates") return row < 31 || row > 45;
  if (name === "everything") return row < 256;
  return !unstableRows.includes(row) && !(name === "engram" && row === 44);
}

for (const name of v41Cases) {
  const golden = await loadV41Case(name);
  const engram = await golden.openEngram();
  const labels = roundedLabels(golden.config);
  const subject = (device: Device, rounding: Rounding, keep: readonly string[] = []): Subject => ({
    prompts: [golden.prompt],
    runner: (stepTokens) => new ModelRunner({ ...golden.config, rounding }, device, { stepTokens, engram, keep }),
  });
  /** Logits of the whole prompt, and what was rounded on the way. */
  const withCodes = async (device: Device, rounding: Rounding) => {
    const runner = subject(device, rounding, labelsToKeep(golden.config)).runner(oneStep);
    const { prompt: tokenIds } = golden;
    const rows = await runner.append({ sequence: runner.createSequence(), tokenIds, outputs: tokenIds.length });
    return { rows, rounded: readRounded(runner, labels) };
  };
  const reference = new ReferenceDevice();
  await loadWeights(golden, reference);
  const bodies = kernelBodiesHere.map((body) => ({ name: body.name, create: () => body.create() }));
  for (const body of [...bodies, { name: "reference", create: async () => reference }]) {
    const device = await body.create();
    if (device !== reference) await loadWeights(golden, device);
    describe(`${name} on ${body.name}`, () => {
      after(() => device[Symbol.dispose]());
      test("the logits of every position are those of the reference", async () =>
        checkLogits(golden, await prefill(subject(device, golden.recordedRounding), golden.prompt, oneStep), "logits"));
      for (const { key, rounding, rows } of otherLogits.filter((other) => golden.tensors.has(other.key)))
        test(`with other rounding they are its ${key}`, async () => {
          const found = await withCodes(device, rounding);
          const float64 = device === reference || rounding === "none" ? found : await withCodes(reference, rounding);
          const firstOther = firstOtherPosition(found.rounded, float64.rounded, golden.config);
          checkLogits(golden, found.rows, key, { isCompared: (row) => rows(golden, row), firstOther });
        });
      test("greedy decoding gives the same tokens", () =>
        checkGreedy(golden, subject(device, golden.recordedRounding).runner(oneStep)));
      test("chunks of 7 give bitwise the logits of one step", () => checkChunks(subject(device, "caches"), 7));
    });
  }
}

/** Rows from `firstOther` on may be those of another code. */
function checkLogits(
  golden: V41Case,
  rows: readonly Float32Array[],
  key: string,
  {
    isCompared = () => true,
    firstOther = Number.POSITIVE_INFINITY,
  }: { isCompared?(row: number): boolean; firstOther?: number } = {},
): void {
  const compared = rows.map((row, p) => ({ row, p })).filter(({ p }) => isCompared(p));
  const isFar = ({ row, p }: (typeof compared)[number]) => distance(row, golden.row(key, p)) > tolerance;
  const flipped = compared.filter((part) => part.p >= firstOther && isFar(part));
  assert.ok(flipped.length <= tolerances.shareOfFlipped * compared.length, `${key}: ${flipped.map(({ p }) => p)} part`);
  for (const part of compared) {
    const limit = flipped.includes(part) ? tolerances.flipped : tolerance;
    assertClose(part.row, golden.row(key, part.p), `${key}, position ${part.p}`, limit);
  }
}

function distance(a: ArrayLike<number>, b: ArrayLike<number>): number {
  return Array.from(a).reduce((most, x, i) => Math.max(most, Math.abs(x - b[i]!)), 0);
}

async function checkGreedy(golden: V41Case, runner: ModelRunner): Promise<void> {
  const sequence = runner.createSequence();
  let [logits] = await runner.append({ sequence, tokenIds: golden.prompt, outputs: 1 });
  for (const [i, expected] of golden.row("greedy.tokens").entries()) {
    assertClose(logits!, golden.row("greedy.logits", i), `step ${i}`, tolerance);
    const token = logits!.indexOf(Math.max(...logits!));
    assert.equal(token, expected, `token ${i}`);
    [logits] = await runner.append({ sequence, tokenIds: [token], outputs: 1 });
  }
}
