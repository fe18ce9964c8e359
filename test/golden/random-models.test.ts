/** Models of random shapes: both devices agree, and no cut of the input changes a bit, where no recorded case looks. */
import assert from "node:assert/strict";
import { describe, test } from "node:test";
import { ActiveWorkers } from "../../src/device/cpu/active-workers.ts";
import { KernelDevice } from "../../src/device/cpu/kernel-device.ts";
import type { Device } from "../../src/device/device.ts";
import { ReferenceDevice } from "../../src/device/reference/reference-device.ts";
import { NativeHost } from "../../src/engine/kernels/native-host.ts";
import { ModelRunner } from "../../src/engine/model-runner.ts";
import type { ModelConfig, V4Config } from "../../src/model/config.ts";
import { modelParameters } from "../../src/model/parameters.ts";
import { parseConfig } from "../../src/model/parse-config.ts";
import { bestBody, kernelBodiesHere } from "../kernel-devices.ts";

let state = 1;
function random(): number {
  state = (Math.imul(state, 1664525) + 1013904223) >>> 0;
  return state / 2 ** 32;
}
const pick = <T>(...values: T[]): T => values[Math.floor(random() * values.length)]!;

function randomConfig(): V4Config {
  const layers = pick(1, 2, 3, 5);
  const groups = pick(1, 2, 3);
  const experts = pick(1, 3, 8);
  const headDim = pick(6, 16, 20);
  return parseConfig({
    model_type: "deepseek_v4",
    vocab_size: 61,
    hidden_size: pick(7, 16, 33),
    num_hidden_layers: layers,
    num_attention_heads: groups * pick(1, 2, 3),
    head_dim: headDim,
    qk_rope_head_dim: pick(2, 4, 6),
    q_lora_rank: pick(1, 9, 16),
    o_groups: groups,
    o_lora_rank: pick(1, 5),
    sliding_window: pick(1, 3, 32, 128),
    compress_ratios: Array.from({ length: layers }, () => pick(0, 4, 128)),
    index_n_heads: pick(1, 3),
    index_head_dim: pick(6, 10),
    index_topk: pick(1, 5, 40),
    hc_mult: pick(1, 2, 4),
    hc_sinkhorn_iters: pick(1, 2, 20),
    n_routed_experts: experts,
    num_experts_per_tok: pick(1, Math.min(2, experts), experts),
    n_shared_experts: pick(0, 1, 2),
    moe_intermediate_size: pick(1, 8, 13),
    num_hash_layers: pick(0, 1),
    norm_topk_prob: pick(true, false),
    swiglu_limit: pick(0, 1, 10),
    routed_scaling_factor: pick(1, 2.5),
    max_position_embeddings: 100_000,
    rope_scaling: pick(null, {
      type: "yarn",
      factor: 16,
      original_max_position_embeddings: 64,
      beta_fast: 32,
      beta_slow: 1,
    }),
  }) as V4Config; // the model_type says so
}

function loadRandomWeights(config: ModelConfig, devices: readonly Device[]): void {
  for (const { name, shape, kind } of modelParameters(config)) {
    const size = shape.reduce((product, dim) => product * dim, 1);
    const k = shape.at(-1)!;
    const data =
      kind === "integers"
        ? Int32Array.from({ length: size }, (_, i) => (i % k) + Math.floor(random() * (config.numExperts - k + 1)))
        : Float32Array.from({ length: size }, () => (random() - 0.5) * (kind === "vector" ? 2 : 4 / Math.sqrt(k)));
    for (const device of devices) device.setWeight(name, data);
  }
}

async function logitsOf(config: ModelConfig, device: Device, ids: number[], chunk: number, stepTokens = 512) {
  const runner = new ModelRunner(config, device, { stepTokens, context: 64 });
  return runner.append(
    { sequence: runner.createSequence(), tokenIds: ids, outputs: ids.length },
    { stepTokens: chunk },
  );
}

/** Each body in turn. */
const bodyOf = (seed: number) => kernelBodiesHere[seed % kernelBodiesHere.length]!;

describe("models of random shapes", () => {
  for (let seed = 1; seed <= 40; seed++) {
    test(`shape ${seed}: float32 agrees with float64, chunks and batches change no bit`, async () => {
      state = seed * 7919;
      const config = randomConfig();
      using cpu = await bodyOf(seed).create({ workers: 1 + (seed % 3) });
      const reference = new ReferenceDevice();
      loadRandomWeights(config, [cpu, reference]);
      const ids = Array.from({ length: pick(1, 40, 150, 300) }, () => Math.floor(random() * config.vocabSize));
      const whole = await logitsOf(config, cpu, ids, 512);
      // Logits of random weights are of the order of 1; a near tie of two index scores may choose another entry.
      const oracle = await logitsOf(config, reference, ids, 512);
      const far = whole.filter((row, p) => row.some((logit, v) => !(Math.abs(logit - oracle[p]![v]!) < 1e-3)));
      assert.ok(far.length <= ids.length / 50, `${far.length} of ${ids.length} positions differ`);
      for (const chunk of [1, 3, 31]) {
        const rows = await logitsOf(config, cpu, ids, chunk);
        rows.forEach((row, p) => {
          assert.deepEqual(row, whole[p], `chunk ${chunk}, position ${p}`);
        });
      }
    });
  }

  test("any number of workers in each step gives the same bits", async () => {
    class AnyNumber extends ActiveWorkers {
      readonly chosen = new Set<number>();
      override choose(): number {
        const workers = pick(1, 2, 3);
        this.chosen.add(workers);
        return workers;
      }
      override tell(): void {}
    }
    for (let seed = 1; seed <= 5; seed++) {
      state = seed * 104729;
      const config = randomConfig();
      const active = new AnyNumber(3);
      using changing = new KernelDevice(new NativeHost({ workers: 3, active }), "int8");
      using alone = new KernelDevice(new NativeHost({ workers: 1 }), "int8");
      loadRandomWeights(config, [changing, alone]);
      const ids = Array.from({ length: 100 }, () => Math.floor(random() * config.vocabSize));
      const rows = await logitsOf(config, alone, ids, 512);
      (await logitsOf(config, changing, ids, 3)).forEach((row, p) => {
        assert.deepEqual(row, rows[p], `shape ${seed}, position ${p}`);
      });
      assert.deepEqual([...active.chosen].sort(), [1, 2, 3]);
    }
  });

  test("a context far beyond the first limits is reached in steps of any size", async () => {
    state = 4;
    const config: V4Config = {
      ...randomConfig(),
      numLayers: 3,
      compressRatios: [0, 4, 128],
      hashRouted: [false, false, false],
    };
    using cpu = await bestBody.create();
    loadRandomWeights(config, [cpu]);
    const ids = Array.from({ length: 3000 }, (_, i) => (i * 17) % config.vocabSize);
    const [large, small] = [await logitsOf(config, cpu, ids, 1000, 1000), await logitsOf(config, cpu, ids, 77, 77)];
    small.forEach((row, p) => {
      assert.deepEqual(row, large[p], `position ${p}`);
    });
  });
});
