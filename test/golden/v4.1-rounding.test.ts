/**
 * Rounded caches of V4.1, token by token beside float64. After every token the caches are given the float64 rows, so that one code
 * that fell to the other side of its border cannot hide behind another: a token whose codes are all the same must have the same logits,
 * and a code may be another only where the values that were rounded agree to the last bits of their sums.
 */
import assert from "node:assert/strict";
import { after, describe, test } from "node:test";
import { ReferenceDevice } from "../../src/device/reference/reference-device.ts";
import type { LayoutPages } from "../../src/engine/cache/kv-cache.ts";
import { ModelRunner, type Sequence } from "../../src/engine/model-runner.ts";
import { layoutName } from "../../src/tensor/paging.ts";
import { kernelBodiesHere } from "../kernel-devices.ts";
import { assertClose } from "./bitwise.ts";
import { firstOtherCode, labelsToKeep, type Rounded, readRounded, roundedLabels } from "./rounded-codes.ts";
import { loadV41Case, v41Cases } from "./v4.1-case.ts";
import { loadWeights } from "./v4-case.ts";

/** As for models that round nothing. */
const tolerance = 2e-4;
/** Of a token one of whose own codes is another: it may select another entry. */
const toleranceOfOther = 0.2;
/** Tokens that may be of that kind; more would be another rounding. */
const shareOfOther = 0.03;

/** What float64 makes of a token. */
interface Expected {
  readonly logits: Float32Array;
  readonly rounded: Rounded;
  readonly rows: readonly CacheRow[];
}

/** A row that a token wrote. */
interface CacheRow {
  readonly cache: string;
  readonly layout: string;
  readonly row: number;
  readonly values: Float32Array;
}

for (const name of v41Cases) {
  const golden = await loadV41Case(name);
  const engram = await golden.openEngram();
  const config = { ...golden.config, rounding: "caches" as const };
  const labels = roundedLabels(config);
  const options = { stepTokens: 1, keep: labelsToKeep(config), engram };
  const reference = new ReferenceDevice();
  await loadWeights(golden, reference);
  const expected = await everyToken(new ModelRunner(config, reference, options));

  async function everyToken(runner: ModelRunner): Promise<Expected[]> {
    const sequence = runner.createSequence();
    const tokens: Expected[] = [];
    for (const id of golden.prompt) {
      const [logits] = await runner.append({ sequence, tokenIds: [id], outputs: 1 });
      tokens.push({ logits: logits!, rounded: readRounded(runner, labels), rows: await newRows(runner, sequence) });
    }
    return tokens;
  }

  describe(`${name}, rounded`, () => {
    after(() => golden.checkpoint.close());
    for (const body of kernelBodiesHere)
      test(`codes and logits are those of float64, but at borders, on ${body.name}`, async (t) => {
        using device = await body.create();
        await loadWeights(golden, device);
        const runner = new ModelRunner(config, device, options);
        const sequence = runner.createSequence();
        const others: string[] = [];
        for (const [p, token] of expected.entries()) {
          const [logits] = await runner.append({ sequence, tokenIds: [golden.prompt[p]!], outputs: 1 });
          const label = firstOtherCode(readRounded(runner, labels), token.rounded, `position ${p}`);
          if (label !== undefined) others.push(`${p} ${label}`);
          assertClose(logits!, token.logits, `position ${p}`, label === undefined ? tolerance : toleranceOfOther);
          for (const row of token.rows) putRow(runner, sequence, row);
        }
        t.diagnostic(`another code at: ${others.join(", ") || "no position"}`);
        assert.ok(others.length <= Math.ceil(shareOfOther * expected.length), others.join(", "));
      });
  });
}

/** The rows that the last token of a sequence wrote, of every cache. */
async function newRows(runner: ModelRunner, sequence: Sequence): Promise<CacheRow[]> {
  const rows: CacheRow[] = [];
  for (const { storage } of runner.program.graph.caches.values()) {
    const { name: cache, layout } = storage;
    const row = sequence.length / layout.tokensPerRow - 1;
    if (!Number.isInteger(row)) continue;
    const pages = pagesOf(runner, layoutName(layout));
    const values = await runner.program.readCache(cache, placeOf(sequence, pages, row), 1);
    rows.push({ cache, layout: pages.name, row, values: Float32Array.from(values) });
  }
  return rows;
}

function putRow(runner: ModelRunner, sequence: Sequence, { cache, layout, row, values }: CacheRow): void {
  runner.program.writeCache(cache, placeOf(sequence, pagesOf(runner, layout), row), values);
}

function pagesOf(runner: ModelRunner, name: string): LayoutPages {
  return runner.cache.layouts.find((layout) => layout.name === name)!;
}

function placeOf(sequence: Sequence, { name, pageRows }: LayoutPages, row: number): number {
  return sequence.cache.pagesOf(name).get(Math.floor(row / pageRows))! * pageRows + (row % pageRows);
}
