/**
 * DSpark, the drafter of V4.1, against values recorded from NVIDIA NeMo: features, every stage of the first draft, logits and
 * confidence of three drafts. And decoding with drafts gives the tokens of plain decoding, whatever is drafted.
 */
import assert from "node:assert/strict";
import { after, describe, test } from "node:test";
import type { Device } from "../../src/device/device.ts";
import { ReferenceDevice } from "../../src/device/reference/reference-device.ts";
import { DsparkDrafter } from "../../src/engine/drafting/dspark-drafter.ts";
import { type ModelDrafter, mostProbable } from "../../src/engine/drafting/model-drafter.ts";
import { ModelRunner, type RunnerOptions } from "../../src/engine/model-runner.ts";
import { decodeTokens, draftingOf } from "../decode-tokens.ts";
import { kernelBodiesHere } from "../kernel-devices.ts";
import { assertClose } from "./bitwise.ts";
import { loadV41Case } from "./v4.1-case.ts";
import { loadWeights } from "./v4-case.ts";

const tolerance = 2e-4;

const golden = await loadV41Case("dspark");
/** The prompt and its greedy continuation: what the recorded features are of. */
const ids = golden.sequence;
const exact = { ...golden.config, rounding: "none" } as const;
const { featureLayers, blockSize } = golden.config.drafter!;

const bodies = kernelBodiesHere.map((body) => ({ name: body.name, create: () => body.create() }));
for (const body of [...bodies, { name: "reference", create: async () => new ReferenceDevice() }]) {
  const device = await body.create();
  await loadWeights(golden, device);
  const runnerOf = (options: RunnerOptions = {}) => new ModelRunner(exact, device, { ...options, drafts: true });
  describe(`DSpark on ${body.name}`, () => {
    after(() => device[Symbol.dispose]());
    test("the features of every position are those of the reference", async () => {
      const runner = runnerOf({ keep: featureLayers.map((layer) => `features.${layer}`) });
      await runner.append({ sequence: runner.createSequence(), tokenIds: ids, outputs: 0 });
      const width = golden.config.hiddenSize;
      const features = featureLayers.map((layer) => runner.program.read(`features.${layer}`));
      ids.forEach((_, p) => {
        const row = features.flatMap((rows) => [...rows.subarray(p * width, (p + 1) * width)]);
        assertClose(row, golden.row("dspark.main_hidden", p), `features of position ${p}`, tolerance);
      });
    });
    test("the drafts of every anchor are those of the reference", () => checkDrafts(device, runnerOf));
    test("decoding with drafts gives the tokens of plain decoding", () => checkDecoding(device, runnerOf));
    test("drafts that are asked for at the same time are those that are asked for in turn", () =>
      checkConcurrentDrafts(device, runnerOf));
  });
}
after(() => golden.checkpoint.close());

type RunnerOf = (options?: RunnerOptions) => ModelRunner;

async function checkConcurrentDrafts(device: Device, runnerOf: RunnerOf): Promise<void> {
  const runner = runnerOf();
  const drafter = new DsparkDrafter(runner, device);
  const requests = [];
  for (const length of [3, 9, 14, 20]) {
    const sequence = runner.createSequence();
    await runner.append({ sequence, tokenIds: ids.slice(0, length), outputs: 0 });
    requests.push({ sequence, anchor: ids[length]!, count: blockSize, choose: mostProbable });
  }
  const inTurn: Awaited<ReturnType<typeof drafter.blocks>>[] = [];
  for (const request of requests) inTurn.push(await drafter.blocks([request]));
  const together = await Promise.all(requests.map((request) => drafter.blocks([request])));
  const told = (blocks: typeof inTurn) =>
    blocks.flat().map(({ tokenIds, logits, confidence }) => ({ tokenIds, logits, confidence }));
  assert.deepEqual(told(together), told(inTurn));
}

async function checkDrafts(device: Device, runnerOf: RunnerOf): Promise<void> {
  const stages = Array.from({ length: exact.numMtpModules }, (_, stage) => stage);
  const runner = runnerOf({ keep: stages.flatMap((stage) => [`mtp.${stage}.streams`, `mtp.${stage}.hc_ffn.pre`]) });
  const drafter = new DsparkDrafter(runner, device);
  const requests = [];
  for (const [i, anchor] of golden.anchors.entries()) {
    const sequence = runner.createSequence();
    // In one piece, in two, and position by position: how a context comes about changes nothing.
    const cuts = i === 0 ? [anchor] : i === 1 ? [7, anchor] : Array.from({ length: anchor }, (_, p) => p + 1);
    for (const end of cuts) await runner.append({ sequence, tokenIds: ids.slice(sequence.length, end), outputs: 0 });
    requests.push({ sequence, anchor: ids[anchor]!, count: blockSize, choose: mostProbable });
  }
  const [alone] = await drafter.blocks([requests[0]!]);
  for (const stage of stages) {
    const check = (label: string, key: string) => {
      const expected = golden.row(`dspark.0.stage${stage}.${key}`);
      assertClose(runner.program.read(label), expected, `stage ${stage}, ${key}`, tolerance);
    };
    check(`mtp.${stage}.streams`, "streams");
    check(`mtp.${stage}.hc_ffn.pre`, "pre_mix");
  }
  assertClose(runner.program.read("draft.collapsed"), golden.row("dspark.0.collapsed"), "collapsed", tolerance);
  assertClose(runner.program.read("draft.logits"), golden.row("dspark.0.base_logits"), "base logits", tolerance);

  const together = await drafter.blocks(requests);
  for (const key of ["tokenIds", "logits", "confidence"] as const)
    assert.deepEqual(together[0]![key], alone![key], "a draft depends on no neighbour, nor on an earlier draft");
  for (const [i, { tokenIds, logits, confidence }] of together.entries()) {
    assert.deepEqual([...tokenIds], Array.from(golden.row(`dspark.${i}.tokens`)), `tokens of draft ${i}`);
    const flat = logits.flatMap((row) => Array.from(row));
    assertClose(flat, golden.row(`dspark.${i}.logits`), `logits of draft ${i}`, tolerance);
    assertClose(confidence, golden.row(`dspark.${i}.confidence`), `confidence of draft ${i}`, tolerance);
  }
}

async function checkDecoding(device: Device, runnerOf: RunnerOf): Promise<void> {
  const expected = Array.from(golden.row("greedy.tokens"));
  const runner = runnerOf({ stepTokens: 16 });
  const greedy = { temperature: 0, maxTokens: expected.length };
  const honest = new DsparkDrafter(runner, device);
  const found = await decodeTokens(runner, golden.prompt, greedy, draftingOf(honest));
  assert.deepEqual(found.tokenIds, expected);
  assert.ok(found.drafts.drafted > expected.length);

  // A drafter that knows the answer in part: right tokens are kept, and nothing else changes.
  const answer = [...golden.prompt, ...expected];
  const oracle: ModelDrafter = {
    kind: "dspark",
    mostTokens: blockSize,
    isChained: false,
    draft: async ([request]) => {
      const next = answer.slice(request!.sequence.length + 1).slice(0, request!.count);
      return [next.map((id, i) => (i === 3 ? (id + 1) % 64 : id))];
    },
  };
  const helped = await decodeTokens(runner, golden.prompt, greedy, draftingOf(oracle));
  assert.deepEqual(helped.tokenIds, expected);
  const { accepted, steps } = helped.drafts;
  assert.ok(accepted >= 12 && steps + accepted === expected.length, `${accepted} accepted in ${steps} steps`);
}
