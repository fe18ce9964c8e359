/** V4.1 models of random shapes and schedules: float32 agrees with float64, and no cut changes a bit, where no recorded case looks. */
import assert from "node:assert/strict";
import { describe, test } from "node:test";
import { ReferenceDevice } from "../../src/device/reference/reference-device.ts";
import { ModelRunner } from "../../src/engine/model-runner.ts";
import type { V41Config } from "../../src/model/config.ts";
import { modelParameters } from "../../src/model/parameters.ts";
import { parseConfig } from "../../src/model/parse-config.ts";
import { kernelBodiesHere } from "../kernel-devices.ts";
import { checkChunks, checkRagged, checkRewindAndFork, prefill, type Subject } from "./bitwise.ts";

let state = 1;
function random(): number {
  state = (Math.imul(state, 1664525) + 1013904223) >>> 0;
  return state / 2 ** 32;
}
const pick = <T>(...values: T[]): T => values[Math.floor(random() * values.length)]!;

/** Layers of a window, then groups of two, then of one; sources at the beginning of each, and some between. */
function randomSchedule() {
  const counts = [pick(0, 1, 2), pick(0, 1, 3), pick(0, 2, 3)];
  const ratios = [0, 2, 1].flatMap((ratio, i) => new Array<number>(counts[i]!).fill(ratio));
  if (ratios.length === 0) ratios.push(0);
  const isFirst = (l: number) => ratios[l] !== 0 && ratios[l] !== ratios[l - 1];
  const entries = ratios.map((_, l) => l).filter((l) => isFirst(l) || (ratios[l] === 2 && pick(true, false)));
  const indexers = ratios.map((_, l) => l).filter((l) => entries.includes(l) || (ratios[l] !== 0 && pick(true, false)));
  return {
    num_hidden_layers: ratios.length,
    compress_ratios: ratios,
    kv_source_layer_ids: entries,
    index_source_layer_ids: indexers,
    candidate_source_layer_id: pick(-1, entries.at(-1) ?? -1),
  };
}

function randomConfig(): V41Config {
  const groups = pick(1, 2, 3);
  const experts = pick(1, 3, 8);
  return parseConfig({
    model_type: "deepseek_v41_text",
    ...randomSchedule(),
    vocab_size: 61,
    hidden_size: pick(7, 16, 33),
    num_attention_heads: groups * pick(1, 2, 3),
    head_dim: pick(6, 16, 20),
    qk_rope_head_dim: pick(2, 4, 6),
    q_lora_rank: pick(1, 9, 16),
    o_groups: groups,
    o_lora_rank: pick(1, 5),
    sliding_window: pick(1, 3, 32, 128),
    index_n_heads: pick(1, 3),
    index_head_dim: pick(6, 10),
    index_topk: pick(1, 5, 40),
    candidate_topk_blocks: pick(1, 3, 50),
    candidate_block_size: pick(1, 3, 8),
    hc_mult: pick(1, 2, 4),
    hc_sinkhorn_iters: pick(1, 20),
    n_routed_experts: experts,
    num_experts_per_tok: pick(1, experts),
    n_shared_experts: pick(0, 1),
    moe_intermediate_size: pick(1, 8, 13),
    gate_temp: pick(1, 0.5),
    swiglu_limit: pick(0, 1, 10),
    max_position_embeddings: 100_000,
  }) as V41Config; // the model_type says so
}

describe("V4.1 models of random shapes", () => {
  for (let seed = 1; seed <= 14; seed++) {
    test(`shape ${seed}: float32 agrees with float64, and no cut changes a bit`, async () => {
      state = seed * 7919;
      const config = randomConfig();
      const body = kernelBodiesHere[seed % kernelBodiesHere.length]!;
      using cpu = await body.create({ workers: 1 + (seed % 3) });
      const reference = new ReferenceDevice();
      for (const { name, shape, kind } of modelParameters(config)) {
        const spread = kind === "vector" ? 2 : 4 / Math.sqrt(shape.at(-1)!);
        const size = shape.reduce((product, dim) => product * dim, 1);
        const weights = Float32Array.from({ length: size }, () => (random() - 0.5) * spread);
        for (const device of [cpu, reference]) device.setWeight(name, weights);
      }
      const prompts = [Array.from({ length: pick(30, 100, 150) }, () => Math.floor(random() * config.vocabSize))];
      const on = (device: typeof cpu | ReferenceDevice, rounding: V41Config["rounding"]): Subject => ({
        prompts,
        runner: (stepTokens) => new ModelRunner({ ...config, rounding }, device, { stepTokens, context: 64 }),
      });
      const found = await prefill(on(cpu, "none"), prompts[0]!, 512);
      const oracle = await prefill(on(reference, "none"), prompts[0]!, 512);
      // A near tie of two scores may choose another entry or expert.
      const far = found.filter((row, p) => row.some((logit, v) => !(Math.abs(logit - oracle[p]![v]!) < 1e-3)));
      assert.ok(far.length <= prompts[0]!.length / 50, `${far.length} of ${prompts[0]!.length} positions differ`);
      const rounded = on(cpu, seed % 4 === 0 ? "caches-and-inputs" : "caches");
      for (const chunk of [1, 3, 31]) await checkChunks(rounded, chunk);
      await checkRagged(rounded);
      await checkRewindAndFork(rounded);
    });
  }
});
