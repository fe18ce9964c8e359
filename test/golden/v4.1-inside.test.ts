/**
 * The recorded DeepSeek-V4.1 models from inside: every stored activation and n-gram hash; and our own promise that neither
 * chunks, nor batches, nor winding back changes a bit.
 */
import assert from "node:assert/strict";
import { after, describe, test } from "node:test";
import type { Device } from "../../src/device/device.ts";
import { ReferenceDevice } from "../../src/device/reference/reference-device.ts";
import { ModelRunner } from "../../src/engine/model-runner.ts";
import { bestBody } from "../kernel-devices.ts";
import { assertClose, checkChunks, checkRagged, checkRewindAndFork, oneStep, type Subject } from "./bitwise.ts";
import { loadV41Case, type V41Case, v41Cases } from "./v4.1-case.ts";
import { loadWeights } from "./v4-case.ts";

/** Stated by the recorded cases for a float32 engine. */
const tolerance = 2e-4;

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

for (const name of v41Cases) {
  const golden = await loadV41Case(name);
  const engram = await golden.openEngram();
  const cpu = await bestBody.create({ workers: 3 });
  await loadWeights(golden, cpu);
  const subject: Subject = {
    prompts: [golden.prompt],
    runner: (stepTokens) => new ModelRunner(golden.config, cpu, { stepTokens, engram }),
  };
  describe(`${name}, inside`, () => {
    after(async () => {
      cpu[Symbol.dispose]();
      await golden.checkpoint.close();
    });
    if ([...golden.tensors.keys()].some((key) => key.startsWith("layers.")))
      test("every stored activation is that of the reference", async () => {
        // A rounded value on the border of two codes may fall either way in float32.
        if (golden.recordedRounding === "none") return checkActivations(golden, cpu, engram);
        const device = new ReferenceDevice();
        await loadWeights(golden, device);
        await checkActivations(golden, device, engram);
      });
    for (const chunk of [1, 3, 64]) {
      test(`chunks of ${chunk} give bitwise the logits of one step`, () => checkChunks(subject, chunk));
    }
    test("sequences that share steps have bitwise the logits they have alone", () => checkRagged(subject));
    test("winding back and forking change no bit", () => checkRewindAndFork(subject));
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
  const pool = config.candidatePool && [poolLabel(config.candidatePool.sourceLayer)];
  const keep = [...new Set([...wanted.values()].map(({ label }) => label)), ...(pool ?? [])];
  const runner = new ModelRunner(config, device, { stepTokens: oneStep, keep, engram });
  const { prompt } = golden;
  await runner.append({ sequence: runner.createSequence(), tokenIds: prompt, outputs: prompt.length });
  assert.ok(wanted.size > 2);
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

function poolLabel(layer: number): string {
  return `layers.${layer}.attn.indexer.candidates`;
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
    case "index_scores": {
      // The reference scores everything and then looks into the pool; we score what is in it.
      const source = config.candidatePool?.sourceLayer ?? layer;
      const pool = layer > source ? config.candidatePool! : undefined;
      const [first, end] = pool ? [position * pool.topBlocks, (position + 1) * pool.topBlocks] : [0, 0];
      const blocks = pool && Array.from(runner.program.read(poolLabel(source)).subarray(first, end));
      const isScored = (w: number) => pool === undefined || blocks!.includes(Math.floor(w / pool.blockSize));
      const wanted = Array.from(expected, (score, w) => (isScored(w) ? score : Number.NEGATIVE_INFINITY));
      assertClose(Array.from(found).slice(0, expected.length), wanted, where, tolerance);
      break;
    }
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
