/** Small models of random weights, each with every kind of layer, for tests that compute a lot of tokens. */
import type { Device } from "../src/device/device.ts";
import { EngramMemory } from "../src/engine/engram/engram-memory.ts";
import { ModelRunner } from "../src/engine/model-runner.ts";
import { type ByteSource, MemorySource } from "../src/format/byte-source.ts";
import type { ModelConfig, V4Config, V41Config } from "../src/model/config.ts";
import { engramTables, modelParameters } from "../src/model/parameters.ts";
import { parseConfig } from "../src/model/parse-config.ts";
import { engramConstants } from "../src/model/v41/engram-hash.ts";
import { bestBody } from "./kernel-devices.ts";

/** Numbers from 0 to 1, the same for the same seed. */
export function randomNumbers(seed: number): () => number {
  let state = seed >>> 0;
  return () => {
    state = (Math.imul(state, 1664525) + 1013904223) >>> 0;
    return state / 2 ** 32;
  };
}

const shape = {
  vocab_size: 61,
  hidden_size: 32,
  num_attention_heads: 2,
  head_dim: 16,
  qk_rope_head_dim: 4,
  q_lora_rank: 16,
  o_groups: 2,
  o_lora_rank: 8,
  sliding_window: 24,
  index_n_heads: 2,
  index_head_dim: 8,
  index_topk: 5,
  hc_mult: 2,
  hc_sinkhorn_iters: 2,
  n_routed_experts: 4,
  num_experts_per_tok: 2,
  n_shared_experts: 1,
  moe_intermediate_size: 16,
  max_position_embeddings: 100_000,
};

const v4 = parseConfig({
  ...shape,
  model_type: "deepseek_v4",
  num_hidden_layers: 4,
  compress_ratios: [0, 4, 128, 4],
  num_hash_layers: 1,
}) as V4Config; // the model_type says so

/** A window, groups of two and of one with a pool that binds soon, and an n-gram memory in the middle of each kind. */
const v41 = smallV41({
  num_hidden_layers: 5,
  compress_ratios: [0, 2, 2, 1, 1],
  kv_source_layer_ids: [1, 3],
  index_source_layer_ids: [1, 2, 3, 4],
  candidate_source_layer_id: 3,
});

/** Groups and pool of another schedule; the rest is that of the small model. */
export function smallV41(schedule: Readonly<Record<string, unknown>>): V41Config {
  const layers = [1, 3].filter((layer) => layer < (schedule.num_hidden_layers as number));
  const engram = { layers, maxNgram: 3, numHeads: 2, firstPrime: 300, compressedVocabSize: shape.vocab_size };
  return parseConfig({
    ...shape,
    model_type: "deepseek_v41_text",
    candidate_topk_blocks: 6,
    candidate_block_size: 4,
    engram_layer_ids: layers,
    engram_num_embeddings: engramConstants(engram).map(({ rows }) => rows),
    engram_max_ngram_size: engram.maxNgram,
    engram_n_heads: engram.numHeads,
    engram_head_dim: 8,
    engram_vocab_size: engram.firstPrime,
    engram_pad_token_id: 2,
    engram_compressed_vocab_size: engram.compressedVocabSize,
    ...schedule,
  }) as V41Config; // the model_type says so
}

export const smallConfigs = { v4, "v4.1": v41 } as const;
export type SmallModelName = keyof typeof smallConfigs;
export const smallModelNames = Object.keys(smallConfigs) as SmallModelName[];

export function giveRandomWeights(config: ModelConfig, device: Device, seed: number): void {
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

/** Tables of random rows, which are read one by one: the budget holds eight of them. `sourceOf` may change how they are read. */
export async function randomEngram(
  config: ModelConfig,
  seed: number,
  sourceOf: (source: ByteSource) => ByteSource = (source) => source,
): Promise<EngramMemory | undefined> {
  if (config.architecture !== "deepseek-v4.1" || config.engram === undefined) return undefined;
  const random = randomNumbers(seed + 1);
  const tables = engramTables(config).map(({ name, shape: [rows, columns] }) => {
    const values = Float32Array.from({ length: rows! * columns! }, () => (random() - 0.5) * 4);
    const bytes = new Uint8Array(values.buffer);
    const data = { source: sourceOf(new MemorySource(name, bytes)), offset: 0, length: bytes.length };
    const parts = [{ data, scales: undefined }];
    const whole = { scaleIsFloat: false, blockRows: 1, blockColumns: columns! };
    return { name, stored: { format: "F32", rows: rows!, columns: columns!, experts: 1, parts, ...whole } };
  });
  const tokenMap = Int32Array.from({ length: config.vocabSize }, (_, id) => id);
  return EngramMemory.open(config, config.engram, tokenMap, tables, { cacheBytes: 0 });
}

/** A runner, which the caller disposes of with its device. */
export async function smallRunner(config: ModelConfig, device: Device, seed: number): Promise<ModelRunner> {
  giveRandomWeights(config, device, seed);
  const engram = await randomEngram(config, seed);
  return new ModelRunner(config, device, { stepTokens: 256, context: 512, engram });
}

/** The runner and its device, which the caller disposes of. */
export async function smallModel(
  config: ModelConfig = smallConfigs.v4,
  seed = 1,
): Promise<{ runner: ModelRunner; device: Device }> {
  const device = await bestBody.create({ workers: 1 });
  return { device, runner: await smallRunner(config, device, seed) };
}
