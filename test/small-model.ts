/** A small model of random weights with every kind of layer, for tests that compute a lot of tokens. */
import type { Device } from "../src/device/device.ts";
import { ModelRunner } from "../src/engine/model-runner.ts";
import type { V4Config } from "../src/model/config.ts";
import { modelParameters } from "../src/model/parameters.ts";
import { parseConfig } from "../src/model/parse-config.ts";
import { bestBody } from "./kernel-devices.ts";

/** Numbers from 0 to 1, the same for the same seed. */
export function randomNumbers(seed: number): () => number {
  let state = seed >>> 0;
  return () => {
    state = (Math.imul(state, 1664525) + 1013904223) >>> 0;
    return state / 2 ** 32;
  };
}

export const smallConfig = parseV4Config({
  model_type: "deepseek_v4",
  vocab_size: 61,
  hidden_size: 32,
  num_hidden_layers: 4,
  num_attention_heads: 2,
  head_dim: 16,
  qk_rope_head_dim: 4,
  q_lora_rank: 16,
  o_groups: 2,
  o_lora_rank: 8,
  sliding_window: 24,
  compress_ratios: [0, 4, 128, 4],
  index_n_heads: 2,
  index_head_dim: 8,
  index_topk: 5,
  hc_mult: 2,
  hc_sinkhorn_iters: 2,
  n_routed_experts: 4,
  num_experts_per_tok: 2,
  n_shared_experts: 1,
  moe_intermediate_size: 16,
  num_hash_layers: 1,
  max_position_embeddings: 100_000,
});

function parseV4Config(json: object): V4Config {
  const config = parseConfig(json);
  if (config.architecture !== "deepseek-v4") throw new Error("The small model is of V4");
  return config;
}

export function giveRandomWeights(config: V4Config, device: Device, seed: number): void {
  const random = randomNumbers(seed);
  for (const { name, shape, kind } of modelParameters(config)) {
    const size = shape.reduce((product, dim) => product * dim, 1);
    const k = shape.at(-1)!;
    const data =
      kind === "integers"
        ? Int32Array.from({ length: size }, (_, i) => (i % k) + Math.floor(random() * (config.numExperts - k + 1)))
        : Float32Array.from({ length: size }, () => (random() - 0.5) * (kind === "vector" ? 2 : 4 / Math.sqrt(k)));
    device.setWeight(name, data);
  }
}

/** The runner and its device, which the caller disposes of. */
export async function smallModel(seed = 1, config = smallConfig): Promise<{ runner: ModelRunner; device: Device }> {
  const device = await bestBody.create({ workers: 1 });
  giveRandomWeights(config, device, seed);
  return { device, runner: new ModelRunner(config, device, { stepTokens: 256, context: 512 }) };
}
