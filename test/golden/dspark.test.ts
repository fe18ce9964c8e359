/**
 * DSpark, the drafter of V4.1, against values recorded from NVIDIA NeMo: features, every stage of the first draft, logits and
 * confidence of three drafts. And decoding with drafts gives the tokens of plain decoding, whatever is drafted.
 */
import assert from "node:assert/strict";
import { join } from "node:path";
import { after, describe, test } from "node:test";
import type { Device } from "../../src/device/device.ts";
import { ReferenceDevice } from "../../src/device/reference/reference-device.ts";
import { decodeWithDrafts } from "../../src/engine/drafting/dspark-decoding.ts";
import { DsparkDrafter, type Features } from "../../src/engine/drafting/dspark-drafter.ts";
import { loadModel } from "../../src/engine/load-model.ts";
import { ModelRunner } from "../../src/engine/model-runner.ts";
import { featureOutput } from "../../src/model/v41/layers.ts";
import { kernelBodiesHere } from "../kernel-devices.ts";
import { assertClose } from "./bitwise.ts";
import { loadV41Case } from "./v4.1-case.ts";
import { loadWeights } from "./v4-case.ts";

const tolerance = 2e-4;

const golden = await loadV41Case("dspark");
/** The prompt and its greedy continuation: what the recorded features are of. */
const ids = golden.sequence;
const exact = { ...golden.config, rounding: "none" } as const;
const { featureLayers } = golden.config.drafter!;

const bodies = kernelBodiesHere.map((body) => ({ name: body.name, create: () => body.create() }));
for (const body of [...bodies, { name: "reference", create: async () => new ReferenceDevice() }]) {
  const device = await body.create();
  await loadWeights(golden, device);
  describe(`DSpark on ${body.name}`, () => {
    after(() => device[Symbol.dispose]());
    test("the features of every position are those of the reference", async () => {
      const features = await featuresOf(device);
      const width = golden.config.hiddenSize;
      ids.forEach((_, p) => {
        const row = featureLayers.flatMap((layer) => [...features.get(layer)!.subarray(p * width, (p + 1) * width)]);
        assertClose(row, golden.row("dspark.main_hidden", p), `features of position ${p}`, tolerance);
      });
    });
    test("the drafts of every anchor are those of the reference", () => checkDrafts(device));
    test("decoding with drafts gives the tokens of plain decoding", () => checkDecoding(device));
  });
}
after(() => golden.checkpoint.close());

test("a model that is loaded with its drafter decodes with it, rounded caches and all, as without", async () => {
  const folder = join(import.meta.dirname, "../data/v4.1/dspark");
  using model = await loadModel(folder, { drafter: true, threads: 2 });
  const plain = await model.complete(golden.prompt, { temperature: 0, maxTokens: 24, ignoreEos: true });
  const found = await decodeWithDrafts(model.runner, model.drafter!, golden.prompt, 24);
  assert.deepEqual(found.tokenIds, plain.tokenIds);
  using without = await loadModel(folder, { threads: 1 });
  assert.equal(without.drafter, undefined);
});

async function featuresOf(device: Device): Promise<Features> {
  const runner = new ModelRunner(exact, device, { transformer: { keepStreams: true } });
  await runner.append({ sequence: runner.createSequence(), tokenIds: ids, outputs: 0 });
  const read = (layer: number) => Float32Array.from(runner.program.read(featureOutput(layer)));
  return new Map(featureLayers.map((layer) => [layer, read(layer)]));
}

async function checkDrafts(device: Device): Promise<void> {
  const features = await featuresOf(device);
  const stages = Array.from({ length: exact.numMtpModules }, (_, stage) => stage);
  const keep = stages.flatMap((stage) => [`mtp.${stage}.streams`, `mtp.${stage}.hc_ffn.pre`]);
  const drafter = new DsparkDrafter(exact, device, { keep });
  const take = (from: number, end: number) =>
    new Map([...features].map(([layer, rows]) => [layer, rows.slice(from * 48, end * 48)]));
  const contexts = golden.anchors.map((anchor, i) => {
    const context = drafter.createContext();
    // In one piece, in two, and position by position: how a context comes about changes nothing.
    const cuts = i === 0 ? [anchor] : i === 1 ? [7, anchor] : Array.from({ length: anchor }, (_, p) => p + 1);
    for (const [c, end] of cuts.entries()) context.take(end - (cuts[c - 1] ?? 0), take(cuts[c - 1] ?? 0, end));
    return context;
  });
  const requests = golden.anchors.map((anchor, i) => ({ context: contexts[i]!, anchor: ids[anchor]! }));
  const [alone] = await drafter.draft([requests[0]!]);
  for (const stage of stages) {
    const whole = (label: string) => drafter.program.read(label);
    const check = (label: string, key: string) =>
      assertClose(whole(label), golden.row(`dspark.0.stage${stage}.${key}`), `stage ${stage}, ${key}`, tolerance);
    check(`mtp.${stage}.streams`, "streams");
    check(`mtp.${stage}.hc_ffn.pre`, "pre_mix");
  }
  assertClose(drafter.program.read("collapsed"), golden.row("dspark.0.collapsed"), "collapsed", tolerance);
  assertClose(drafter.program.read("logits"), golden.row("dspark.0.base_logits"), "base logits", tolerance);

  const together = await drafter.draft(requests);
  assert.deepEqual(together[0], alone, "a draft does not depend on its neighbours, nor on an earlier draft");
  for (const [i, { tokenIds, logits, confidence }] of together.entries()) {
    assert.deepEqual([...tokenIds], Array.from(golden.row(`dspark.${i}.tokens`)), `tokens of draft ${i}`);
    const flat = logits.flatMap((row) => Array.from(row));
    assertClose(flat, golden.row(`dspark.${i}.logits`), `logits of draft ${i}`, tolerance);
    assertClose(confidence, golden.row(`dspark.${i}.confidence`), `confidence of draft ${i}`, tolerance);
  }
}

async function checkDecoding(device: Device): Promise<void> {
  const count = golden.shape("greedy.tokens")[0]!;
  const runner = new ModelRunner(exact, device, { transformer: { keepStreams: true }, stepTokens: 16 });
  const honest = new DsparkDrafter(exact, device);
  const found = await decodeWithDrafts(runner, honest, golden.prompt, count);
  assert.deepEqual([...found.tokenIds], Array.from(golden.row("greedy.tokens")));
  assert.ok(found.drafted >= count / 2);

  // A drafter that knows the answer in part: right tokens are kept, and nothing else changes.
  const answer = [...golden.prompt, ...golden.row("greedy.tokens")];
  const oracle = Object.assign(new DsparkDrafter(exact, device), {
    draft: async ([request]: Parameters<DsparkDrafter["draft"]>[0]) => {
      const next = answer.slice(request!.context.length + 1, request!.context.length + 6);
      return [{ tokenIds: next.map((id, i) => (i === 3 ? (id + 1) % 64 : id)), logits: [], confidence: [] }];
    },
  });
  const helped = await decodeWithDrafts(runner, oracle, golden.prompt, count);
  assert.deepEqual(helped.tokenIds, found.tokenIds);
  assert.ok(helped.accepted >= 12, `${helped.accepted} accepted`);
}
