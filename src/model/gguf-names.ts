/**
 * GGUF's names of DeepSeek V4 (`general.architecture` deepseek4): tensors to official names, metadata to the keys of a
 * config.json. Nothing is permuted: rotary pairs are neighbours in both.
 */

import { ModelError } from "../errors.ts";
import type { V4Config } from "./config.ts";
import type { ConfigSpelling } from "./parse-config.ts";

/** Below `blk.N.`, and the official names below `layers.N.`. */
const layerNames: ReadonlyMap<string, string> = new Map([
  ["attn_norm.weight", "attn_norm.weight"],
  ["ffn_norm.weight", "ffn_norm.weight"],
  ...["attn", "ffn"].flatMap((site) =>
    ["fn", "base", "scale"].map((role) => [`hc_${site}_${role}.weight`, `hc_${site}_${role}`] as const),
  ),
  ["attn_sinks.weight", "attn.attn_sink"],
  ["attn_q_a.weight", "attn.wq_a.weight"],
  ["attn_q_a_norm.weight", "attn.q_norm.weight"],
  ["attn_q_b.weight", "attn.wq_b.weight"],
  ["attn_kv.weight", "attn.wkv.weight"],
  ["attn_kv_a_norm.weight", "attn.kv_norm.weight"],
  ["attn_output_a.weight", "attn.wo_a.weight"],
  ["attn_output_b.weight", "attn.wo_b.weight"],
  ["attn_compressor_kv.weight", "attn.compressor.wkv.weight"],
  ["attn_compressor_gate.weight", "attn.compressor.wgate.weight"],
  ["attn_compressor_ape.weight", "attn.compressor.ape"],
  ["attn_compressor_norm.weight", "attn.compressor.norm.weight"],
  ["indexer.attn_q_b.weight", "attn.indexer.wq_b.weight"],
  ["indexer.proj.weight", "attn.indexer.weights_proj.weight"],
  ["indexer_compressor_kv.weight", "attn.indexer.compressor.wkv.weight"],
  ["indexer_compressor_gate.weight", "attn.indexer.compressor.wgate.weight"],
  ["indexer_compressor_ape.weight", "attn.indexer.compressor.ape"],
  ["indexer_compressor_norm.weight", "attn.indexer.compressor.norm.weight"],
  ["ffn_gate_inp.weight", "ffn.gate.weight"],
  ["exp_probs_b.bias", "ffn.gate.bias"],
  ["ffn_gate_tid2eid.weight", "ffn.gate.tid2eid"],
  ["ffn_gate_exps.weight", "ffn.experts.w1.weight"],
  ["ffn_down_exps.weight", "ffn.experts.w2.weight"],
  ["ffn_up_exps.weight", "ffn.experts.w3.weight"],
  ["ffn_gate_shexp.weight", "ffn.shared_experts.w1.weight"],
  ["ffn_down_shexp.weight", "ffn.shared_experts.w2.weight"],
  ["ffn_up_shexp.weight", "ffn.shared_experts.w3.weight"],
]);

/** Below `blk.N.` of a module for multi-token prediction, which is a block behind the layers, beside the names of a layer. */
const mtpNames: ReadonlyMap<string, string> = new Map([
  ["nextn.e_proj.weight", "e_proj.weight"],
  ["nextn.h_proj.weight", "h_proj.weight"],
  ["nextn.enorm.weight", "enorm.weight"],
  ["nextn.hnorm.weight", "hnorm.weight"],
  ["nextn.shared_head_norm.weight", "norm.weight"],
  ...["fn", "base", "scale"].map((role) => [`nextn.hc_head_${role}.weight`, `hc_head_${role}`] as const),
]);

const rootNames: ReadonlyMap<string, string> = new Map([
  ["token_embd.weight", "embed.weight"],
  ["output.weight", "head.weight"],
  ["output_norm.weight", "norm.weight"],
  ["output_hc_fn.weight", "hc_head_fn"],
  ["output_hc_base.weight", "hc_head_base"],
  ["output_hc_scale.weight", "hc_head_scale"],
]);

/**
 * The official name of a GGUF tensor; undefined for one that the architecture does not have. Blocks from `numLayers` on are modules
 * for multi-token prediction.
 */
export function officialNameOfGguf(name: string, numLayers: number): string | undefined {
  // One spelling of each number: "blk.00." would be a second name of the same block.
  const block = /^blk\.(0|[1-9]\d{0,5})\.(.*)$/s.exec(name);
  if (block === null) return rootNames.get(name);
  const [number, rest] = [Number(block[1]), block[2]!];
  const isLayer = number < numLayers;
  const official = layerNames.get(rest) ?? (isLayer ? undefined : mtpNames.get(rest));
  if (official === undefined) return undefined;
  return isLayer ? `layers.${number}.${official}` : `mtp.${number - numLayers}.${official}`;
}

/** The GGUF name of an official one: the way back. */
export function ggufName(official: string, numLayers: number): string {
  const block = /^(layers|mtp)\.(\d+)\.(.*)$/s.exec(official);
  const [names, rest] = block === null ? [rootNames, official] : [new Map([...layerNames, ...mtpNames]), block[3]!];
  const found = [...names].find(([, name]) => name === rest)?.[0];
  if (found === undefined) throw new ModelError(`GGUF has no name for "${official}"`, { code: "no-name" });
  if (block === null) return found;
  return `blk.${Number(block[2]) + (block[1] === "mtp" ? numLayers : 0)}.${found}`;
}

/**
 * Where the modules for multi-token prediction begin: files may or may not count them as blocks. `numModules` of them are there,
 * none if the tensors are missing.
 */
export function ggufBlocks(
  tensorNames: Iterable<string>,
  blockCount: unknown,
): { numLayers: number; numModules: number } {
  const modules = new Set<number>();
  for (const name of tensorNames) {
    const block = /^blk\.(0|[1-9]\d{0,3})\.nextn\./.exec(name);
    if (block !== null) modules.add(Number(block[1]));
  }
  const count = typeof blockCount === "number" ? blockCount : 0; // what is no number, the check of the config refuses
  return { numLayers: Math.min(count, ...modules), numModules: modules.size };
}

/** Metadata keys below `deepseek4.` and the keys of config.json that say the same. */
const configKeys: Readonly<Record<string, string>> = {
  block_count: "num_hidden_layers",
  context_length: "max_position_embeddings",
  embedding_length: "hidden_size",
  vocab_size: "vocab_size",
  expert_count: "n_routed_experts",
  expert_used_count: "num_experts_per_tok",
  expert_feed_forward_length: "moe_intermediate_size",
  expert_shared_count: "n_shared_experts",
  expert_weights_scale: "routed_scaling_factor",
  expert_weights_norm: "norm_topk_prob",
  hash_layer_count: "num_hash_layers",
  "attention.head_count": "num_attention_heads",
  "attention.head_count_kv": "num_key_value_heads",
  "attention.key_length": "head_dim",
  "attention.q_lora_rank": "q_lora_rank",
  "attention.sliding_window": "sliding_window",
  "attention.output_group_count": "o_groups",
  "attention.output_lora_rank": "o_lora_rank",
  "attention.layer_norm_rms_epsilon": "rms_norm_eps",
  "attention.compress_rope_freq_base": "compress_rope_theta",
  "attention.compress_ratios": "compress_ratios",
  "attention.indexer.head_count": "index_n_heads",
  "attention.indexer.key_length": "index_head_dim",
  "attention.indexer.top_k": "index_topk",
  "rope.dimension_count": "qk_rope_head_dim",
  "rope.freq_base": "rope_theta",
  "hyper_connection.count": "hc_mult",
  "hyper_connection.sinkhorn_iterations": "hc_sinkhorn_iters",
  "hyper_connection.epsilon": "hc_eps",
};

const yarnKeys: Readonly<Record<string, string>> = {
  factor: "factor",
  original_context_length: "original_max_position_embeddings",
  yarn_beta_fast: "beta_fast",
  yarn_beta_slow: "beta_slow",
};

/** What an error says of a config that was made of metadata. */
export const ggufSpelling: ConfigSpelling = {
  file: "metadata",
  keys: new Map([
    ...Object.entries(configKeys).map(([key, name]) => [name, `deepseek4.${key}`] as const),
    ...Object.entries(yarnKeys).map(
      ([key, name]) => [`rope_scaling.${name}`, `deepseek4.rope.scaling.${key}`] as const,
    ),
    ["rope_scaling.type", "deepseek4.rope.scaling.type"],
    ["scoring_func", "deepseek4.expert_gating_func"],
    ["swiglu_limit", "deepseek4.swiglu_clamp_exp"],
    ["num_nextn_predict_layers", "deepseek4.nextn_predict_layers"],
    ["bos_token_id", "tokenizer.ggml.bos_token_id"],
    ["eos_token_id", "tokenizer.ggml.eos_token_id"],
  ]),
  hint: "Convert the model again, or download the file again",
};

/** The only router that V4 has (sqrt-softplus), by llama.cpp's number. */
const sqrtSoftplus = 4;

/**
 * Metadata as the object of a config.json, to be checked like one. `value` gives a metadata value by its key. Values that no
 * V4 config can say stand in the result as they are, so that the check names them.
 */
export function configOfGguf(value: (key: string) => unknown, vocabSize: number | undefined): Record<string, unknown> {
  const of = (key: string) => value(`deepseek4.${key}`);
  const config: Record<string, unknown> = { model_type: "deepseek_v4", vocab_size: vocabSize };
  for (const [key, name] of Object.entries(configKeys)) if (of(key) !== undefined) config[name] = of(key);
  // A cached row is key and value.
  const [keys, values] = [of("attention.key_length"), of("attention.value_length")];
  if (values !== undefined && values !== keys) config.head_dim = `keys of ${String(keys)}, values of ${String(values)}`;
  const gating = of("expert_gating_func");
  if (gating !== undefined && gating !== sqrtSoftplus) config.scoring_func = `expert_gating_func ${String(gating)}`;
  const clamps = [of("swiglu_clamp_exp"), of("swiglu_clamp_shexp")].flat().filter((clamp) => clamp !== undefined);
  // One bound for all: files say it for each block, the architecture has one.
  config.swiglu_limit =
    new Set(clamps).size <= 1 ? (clamps[0] ?? 10) : `different bounds (${clamps.slice(0, 4).join(", ")} ...)`;
  if (of("rope.scaling.type") !== undefined) {
    const yarn = Object.entries(yarnKeys).map(([key, name]) => [name, of(`rope.scaling.${key}`)]);
    config.rope_scaling = { type: of("rope.scaling.type"), ...Object.fromEntries(yarn) };
  }
  const [bos, eos] = [value("tokenizer.ggml.bos_token_id"), value("tokenizer.ggml.eos_token_id")];
  if (bos !== undefined) config.bos_token_id = bos;
  if (eos !== undefined) config.eos_token_id = eos;
  return config;
}

/** Types of the metadata values, as GGUF names them. */
export type GgufMetadata = readonly (readonly [key: string, type: string, value: unknown])[];

/** The metadata that says what a config says: the way back of configOfGguf. */
export function ggufMetadata(config: V4Config, name: string): GgufMetadata {
  const { compressRope, rope } = config;
  const { yarn } = compressRope;
  const count = (key: string, value: number) => [`deepseek4.${key}`, "UINT32", value] as const;
  const float = (key: string, value: number) => [`deepseek4.${key}`, "FLOAT32", value] as const;
  return [
    ["general.architecture", "STRING", "deepseek4"],
    ["general.name", "STRING", name],
    ["general.alignment", "UINT32", 32],
    count("block_count", config.numLayers),
    count("context_length", config.maxPositionEmbeddings),
    count("embedding_length", config.hiddenSize),
    count("vocab_size", config.vocabSize),
    count("feed_forward_length", config.moeIntermediateSize),
    count("expert_count", config.numExperts),
    count("expert_used_count", config.numExpertsPerToken),
    count("expert_feed_forward_length", config.moeIntermediateSize),
    count("expert_shared_count", config.numSharedExperts),
    count("expert_gating_func", sqrtSoftplus),
    count("hash_layer_count", config.hashRouted.filter(Boolean).length),
    float("expert_weights_scale", config.routedScalingFactor),
    ["deepseek4.expert_weights_norm", "BOOL", config.normalizeTopK],
    count("attention.head_count", config.numHeads),
    count("attention.head_count_kv", 1),
    count("attention.key_length", config.headDim),
    count("attention.value_length", config.headDim),
    count("attention.q_lora_rank", config.queryLoraRank),
    count("attention.sliding_window", config.slidingWindow),
    count("attention.output_group_count", config.outputGroups),
    count("attention.output_lora_rank", config.outputLoraRank),
    float("attention.layer_norm_rms_epsilon", config.rmsNormEps),
    float("attention.compress_rope_freq_base", compressRope.theta),
    ["deepseek4.attention.compress_ratios", "ARRAY:INT32", config.compressRatios],
    count("attention.indexer.head_count", config.indexNumHeads),
    count("attention.indexer.key_length", config.indexHeadDim),
    count("attention.indexer.top_k", config.indexTopK),
    count("rope.dimension_count", config.ropeHeadDim),
    float("rope.freq_base", rope.theta),
    ...(yarn === undefined
      ? []
      : [
          ["deepseek4.rope.scaling.type", "STRING", "yarn"] as const,
          float("rope.scaling.factor", yarn.factor),
          count("rope.scaling.original_context_length", yarn.originalContext),
          float("rope.scaling.yarn_beta_fast", yarn.betaFast),
          float("rope.scaling.yarn_beta_slow", yarn.betaSlow),
        ]),
    count("hyper_connection.count", config.hcMult),
    count("hyper_connection.sinkhorn_iterations", config.hcSinkhornIterations),
    float("hyper_connection.epsilon", config.hcEps),
    ["deepseek4.swiglu_clamp_exp", "ARRAY:FLOAT32", config.compressRatios.map(() => config.swigluLimit)],
    count("nextn_predict_layers", config.numMtpModules),
  ];
}
