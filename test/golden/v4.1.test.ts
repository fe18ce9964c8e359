/**
 * Tiny random DeepSeek-V4.1 models against values recorded from NVIDIA NeMo (float32, the whole sequence at once), which were
 * compared with two engines that keep caches: every stored activation, logits, greedy continuations, with and without the
 * rounding of caches; and our own promise that no cut changes a bit.
 */
import assert from "node:assert/strict";
import { after, describe, test } from "node:test";
import type { Device } from "../../src/device/device.ts";
import { ReferenceDevice } from "../../src/device/reference/reference-device.ts";
import { ModelRunner } from "../../src/engine/model-runner.ts";
import type { Rounding } from "../../src/model/config.ts";
import { bestBody, kernelBodiesHere } from "../kernel-devices.ts";
import { assertClose, checkChunks, checkRagged, checkRewindAndFork, oneStep, prefill, type Subject } from "./bitwise.ts";
import { loadV41Case, type V41Case } from "./v4.1-case.ts";
import { loadWeights } from "./v4-case.ts";

/** Stated by the recorded cases for a float32 engine. */
const tolerance = 2e-4;

const names = ["window-csa2", "groups-candidates", "engram", "everything", "fakequant", "dspark"];

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

for (const name of names) {
  const golden = await loadV41Case(name);
  const engram = await golden.openEngram();
  const subject = (device: Device, rounding: Rounding): Subject => ({
    prompts: [golden.prompt],
    runner: (stepTokens) => new ModelRunner({ ...golden.config, rounding }, device, { stepTokens, engram }),
  });
  const bodies = kernelBodiesHere.map((body) => ({ name: body.name, create: () => body.create() }));
  for (const body of [...bodies, { name: "reference", create: async () => new ReferenceDevice() }]) {
    const device = await body.create();
    await loadWeights(golden, device);
    describe(`${name} on ${body.name}`, () => {
      after(() => device[Symbol.dispose]());
      test("the logits of every position are those of the reference", () =>
        checkLogits(golden, subject(device, golden.recordedRounding), "logits", () => true));
      for (const { key, rounding, rows } of otherLogits.filter((other) => golden.tensors.has(other.key))) {
        test(`with other rounding they are its ${key}`, () =>
          checkLogits(golden, subject(device, rounding), key, (row) => rows(golden, row)));
      }
      test("greedy decoding gives the same tokens", () =>
        checkGreedy(golden, subject(device, golden.recordedRounding).runner(oneStep)));
      test("chunks of 7 give bitwise the logits of one step", () => checkChunks(subject(device, "caches"), 7));
    });
  }

  const cpu = await bestBody.create({ workers: 3 });
  await loadWeights(golden, cpu);
  describe(`${name}, inside`, () => {
    after(async () => {
      cpu[Symbol.dispose]();
      await golden.checkpoint.close();
    });
    test("every stored activation is that of the reference", () => checkActivations(golden, cpu, engram));
    for (const chunk of [1, 3, 64]) {
      test(`chunks of ${chunk} give bitwise the logits of one step`, () => checkChunks(subject(cpu, "caches"), chunk));
    }
    test("sequences that share steps have bitwise the logits they have alone", () => checkRagged(subject(cpu, "caches")));
    test("winding back and forking change no bit", () => checkRewindAndFork(subject(cpu, "caches")));
  });
  if (engram !== undefined) {
    test(`${name}: the n-gram hashes are those of the reference`, () => {
      const layers = golden.config.engram!.layers.length;
      for (let layer = 0; layer < layers; layer++) {
        const found = engram.rows(layer, [{ before: [], tokenIds: golden.prompt }]);
        const columns = found.length / golden.prompt.length;
        golden.prompt.forEach((_, t) => {
          const row = Array.from(found.subarray(t * columns, (t + 1) * columns));
          assert.deepEqual(row, Array.from(golden.row("engram.hash_ids", t, layer)), `layer ${layer}, position ${t}`);
        });
      }
    });
  }
}

async function checkLogits(
  golden: V41Case,
  subject: Subject,
  key: string,
  isCompared: (row: number) => boolean,
): Promise<void> {
  const rows = await prefill(subject, golden.prompt, oneStep);
  rows.forEach((row, p) => {
    if (isCompared(p)) assertClose(row, golden.row(key, p), `${key}, position ${p}`, tolerance);
  });
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

/** What a stored stage is called among our labels, below the name of the layer; undefined where it is none of ours. */
const labelOfStage: Readonly<Record<string, string>> = {
  "engram.out": "engram.out",
  "attn_mix.pre": "hc_attn.pre",
  "attn_mix.post": "hc_attn.post",
  "attn_mix.comb": "hc_attn.mix",
  "attn.collapsed": "hc_attn.collapsed",
  "attn.input": "attn.input",
  q_latent: "attn.query_latent",
  window_kv: "attn.kv",
  "compressor.latent": "attn.compressor.latent",
  compressed_kv: "attn.compressor.entries.closed",
  index_k: "attn.indexer.keys.closed",
  index_q: "attn.indexer.queries",
  index_w: "attn.indexer.weights",
  index_scores: "attn.indexer.scores",
  candidates: "attn.indexer.candidates",
  topk: "attn.indexer.selected",
  heads_out: "attn.turned_back",
  wo_a_out: "attn.groups",
  "attn.output": "attn.output",
  streams_mid: "streams_mid",
  "ffn_mix.pre": "hc_ffn.pre",
  "ffn_mix.post": "hc_ffn.post",
  "ffn_mix.comb": "hc_ffn.mix",
  "ffn.collapsed": "hc_ffn.collapsed",
  "ffn.input": "ffn.input",
  "router.experts": "ffn.gate.chosen",
  "router.weights": "ffn.gate.weights",
  "ffn.output": "ffn.output",
  streams_out: "streams",
  pre_mix_out: "hc_ffn.pre",
};
/** Stored for all positions or groups, not only for the chosen positions. */
const wholeStages = ["window_kv", "compressor.latent", "compressed_kv", "index_k"];

/** The label of a stored tensor; a layer hands its streams and its `pre` to the one above, and sources their selection. */
function labelOf({ config }: V41Case, layer: number, stage: string): string | undefined {
  if (stage === "streams_in") return layer === 0 ? undefined : `layers.${layer - 1}.streams`;
  if (stage === "pre_mix_in") return layer === 0 ? undefined : `layers.${layer - 1}.hc_ffn.pre`;
  if (stage === "engram.hash_ids") return undefined; // tested apart
  const source = stage === "topk" ? config.indexSourceLayers.findLast((index) => index <= layer)! : layer;
  const label = labelOfStage[stage];
  assert.ok(label !== undefined, `no label for the stored stage ${stage}`);
  return `layers.${source}.${label}`;
}

async function checkActivations(golden: V41Case, device: Device, engram: ModelRunner["engram"]): Promise<void> {
  const wanted = new Map<string, { label: string; stage: string; layer: number }>();
  for (const key of golden.tensors.keys()) {
    const [, number, stage] = /^layers\.(\d+)\.(.*)$/.exec(key) ?? [];
    if (stage === undefined) continue;
    const label = labelOf(golden, Number(number), stage);
    if (label !== undefined) wanted.set(key, { label, stage, layer: Number(number) });
  }
  const finals = { "final.collapsed": "head.collapsed", "final.norm": "head.normed" };
  for (const [key, label] of Object.entries(finals)) wanted.set(key, { label, stage: key, layer: 0 });
  const config = { ...golden.config, rounding: golden.recordedRounding };
  const keep = [...new Set([...wanted.values()].map(({ label }) => label))];
  const runner = new ModelRunner(config, device, { stepTokens: oneStep, keep, engram });
  const { prompt } = golden;
  await runner.append({ sequence: runner.createSequence(), tokenIds: prompt, outputs: prompt.length });
  assert.ok(wanted.size > 20);
  for (const [key, { label, stage, layer }] of wanted) {
    const found = runner.program.read(label);
    const isWhole = wholeStages.includes(stage);
    const count = isWhole ? golden.shape(key)[0]! : prompt.length;
    const rows = isWhole ? Array.from({ length: count }, (_, i) => i) : golden.positions;
    const width = found.length / count;
    rows.forEach((p, i) => {
      const values = found.subarray(p * width, (p + 1) * width);
      compareStage(golden, runner, `${key}, position ${p}`, stage, layer, p, values, golden.row(key, i));
    });
  }
}

function compareStage(
  { config }: V41Case,
  runner: ModelRunner,
  where: string,
  stage: string,
  layer: number,
  position: number,
  found: ArrayLike<number>,
  expected: ArrayLike<number>,
): void {
  const inOrder = (values: ArrayLike<number>) => Array.from(values).sort((a, b) => a - b);
  switch (stage) {
    case "topk":
    case "router.experts":
      assert.deepEqual(inOrder(found), inOrder(expected), where);
      break;
    case "router.weights": {
      // Along with their experts, whose order differs.
      const chosen = runner.program.read(`layers.${layer}.ffn.gate.chosen`).subarray(position * found.length);
      assert.deepEqual([...chosen.slice(0, found.length)], inOrder(chosen.slice(0, found.length)), "ours rise");
      assertClose(inOrder(found), inOrder(expected), where, tolerance);
      break;
    }
    case "index_scores":
      assertClose(Array.from(found).slice(0, expected.length), expected, where, tolerance);
      break;
    case "candidates": {
      const { blockSize } = config.candidatePool!;
      const visible = Math.floor((position + 1) / config.compressRatios[layer]!);
      const mask = Array.from(expected, (_, w) =>
        w < visible && Array.from(found).includes(Math.floor(w / blockSize)) ? 1 : 0,
      );
      assert.deepEqual(mask, Array.from(expected), where);
      break;
    }
    default:
      assertClose(found, expected, where, tolerance);
  }
}
