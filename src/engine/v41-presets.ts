/** Shapes of V4.1 models for synthesize-model: config.json as published, with fewer layers or smaller. */
import { engramConstants } from "../model/v41/engram-hash.ts";

/** v4.1-tiny (seconds), v4.1-bench, v4.1-flash:N; undefined for other names. Tables of Engram take `engramBytes` each. */
export function v41PresetJson(preset: string, engramBytes: number): Record<string, unknown> | undefined {
  const flash = /^v4\.1-flash:(\d{1,2})$/.exec(preset);
  const layers = Number(flash?.[1] ?? 0);
  if (flash !== null && layers >= 1 && layers <= 40)
    return configJson({ ...flashShape, ...firstLayers(layers) }, engramBytes);
  if (preset === "v4.1-tiny")
    return configJson({ ...tinyShape, ...schedule([0, 2, 2, 1, 1], [1, 3], [1, 3, 4]) }, engramBytes);
  if (preset === "v4.1-bench") {
    const ratios = [0, 0, 2, 2, 2, 2, 1, 1, 1, 1, 1, 1];
    return configJson({ ...benchShape, ...schedule(ratios, [2, 6], [2, 6, 9]), engram_layer_ids: [1, 6] }, engramBytes);
  }
  return undefined;
}

/** Bytes of a row of 256 FP8 values and their scales. */
const rowBytes = 264;

function configJson(text: Readonly<Record<string, unknown>>, engramBytes: number): Record<string, unknown> {
  const shape = { ...common, ...text };
  const hashes = (shape.engram_max_ngram_size - 1) * shape.engram_n_heads;
  const firstPrime = Math.max(64, Math.floor(engramBytes / rowBytes / hashes));
  const tables = engramConstants({
    layers: shape.engram_layer_ids,
    maxNgram: shape.engram_max_ngram_size,
    numHeads: shape.engram_n_heads,
    firstPrime,
    compressedVocabSize: shape.vocab_size,
  });
  return {
    architectures: ["DeepseekV41ForCausalLM"],
    model_type: "deepseek_v41",
    bos_token_id: 0,
    eos_token_id: 1,
    quantization_config: { quant_method: "fp8", weight_block_size: [32, 32], scale_fmt: "ue8m0", expert_dtype: "fp4" },
    text_config: {
      ...shape,
      engram_vocab_size: firstPrime,
      engram_num_embeddings: tables.map(({ rows }) => rows),
      engram_compressed_vocab_size: shape.vocab_size,
    },
  };
}

const common = {
  model_type: "deepseek_v41_text",
  max_position_embeddings: 1 << 20,
  num_key_value_heads: 1,
  n_shared_experts: 1,
  scoring_func: "sqrtsoftplus",
  norm_topk_prob: true,
  routed_scaling_factor: 1.5,
  swiglu_limit: 10,
  rms_norm_eps: 1e-20,
  rope_theta: 10_000,
  compress_rope_theta: 160_000,
  rope_scaling: {
    rope_type: "yarn",
    factor: 16,
    original_max_position_embeddings: 65_536,
    beta_fast: 32,
    beta_slow: 1,
  },
  hc_mult: 4,
  hc_sinkhorn_iters: 20,
  hc_eps: 1e-6,
  candidate_topk_blocks: 2048,
  candidate_block_size: 8,
  engram_layer_ids: [1],
  engram_max_ngram_size: 4,
  engram_n_heads: 8,
  engram_head_dim: 256,
  engram_pad_token_id: 1,
  vocab_size: 1024,
};

const tinyShape = {
  vocab_size: 1024,
  hidden_size: 256,
  moe_intermediate_size: 128,
  num_attention_heads: 4,
  head_dim: 128,
  qk_rope_head_dim: 32,
  q_lora_rank: 128,
  o_groups: 2,
  o_lora_rank: 64,
  n_routed_experts: 8,
  num_experts_per_tok: 2,
  sliding_window: 16,
  index_n_heads: 4,
  index_head_dim: 64,
  index_topk: 16,
  candidate_topk_blocks: 4,
};

const benchShape = {
  vocab_size: 32_768,
  hidden_size: 2048,
  moe_intermediate_size: 1024,
  num_attention_heads: 16,
  head_dim: 512,
  qk_rope_head_dim: 64,
  q_lora_rank: 512,
  o_groups: 4,
  o_lora_rank: 512,
  n_routed_experts: 32,
  num_experts_per_tok: 6,
  sliding_window: 128,
  index_n_heads: 16,
  index_head_dim: 128,
  index_topk: 512,
};

/** The published config of DeepSeek V4.1 Flash. */
const flashShape = {
  vocab_size: 129_280,
  hidden_size: 5120,
  moe_intermediate_size: 2304,
  num_attention_heads: 64,
  head_dim: 512,
  qk_rope_head_dim: 64,
  q_lora_rank: 1280,
  o_groups: 8,
  o_lora_rank: 1024,
  n_routed_experts: 384,
  num_experts_per_tok: 6,
  sliding_window: 128,
  index_n_heads: 32,
  index_head_dim: 128,
  index_topk: 512,
};

/** A few layers stand for the whole: of two or more, a source and layers of each group. */
function firstLayers(layers: number) {
  if (layers < 5) return schedule([2, 1, 1, 1].slice(0, layers), [0, 1].slice(0, layers), [0, 1, 3]);
  const whole = [0, 0, ...new Array<number>(18).fill(2), ...new Array<number>(20).fill(1)];
  const below = schedule(whole.slice(0, layers), [2, 8, 14, 20], [2, 8, 14, 20, 24, 28, 32, 36]);
  return { ...below, engram_layer_ids: [1, 14].filter((layer) => layer < layers) };
}

function schedule(ratios: readonly number[], entrySources: readonly number[], indexSources: readonly number[]) {
  const below = (layer: number) => layer < ratios.length;
  const entries = entrySources.filter(below);
  const pool = entries.findLast((layer) => ratios[layer] === 1) ?? -1;
  return {
    num_hidden_layers: ratios.length,
    compress_ratios: ratios,
    kv_source_layer_ids: entries,
    index_source_layer_ids: indexSources.filter(below),
    candidate_source_layer_id: pool,
    engram_layer_ids: ratios.length > 1 ? [1] : [],
  };
}
