/**
 * GGUF's names of DeepSeek V4 (`general.architecture` deepseek4): tensors to official names, metadata to the keys of a
 * config.json. Nothing is permuted: rotary pairs are neighbours in both.
 */

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

const rootNames: ReadonlyMap<string, string> = new Map([
  ["token_embd.weight", "embed.weight"],
  ["output.weight", "head.weight"],
  ["output_norm.weight", "norm.weight"],
  ["output_hc_fn.weight", "hc_head_fn"],
  ["output_hc_base.weight", "hc_head_base"],
  ["output_hc_scale.weight", "hc_head_scale"],
]);

/** The official name of a GGUF tensor; undefined for one that the architecture does not have. */
export function officialNameOfGguf(name: string): string | undefined {
  const layer = /^blk\.(\d+)\.(.*)$/s.exec(name);
  if (layer === null) return rootNames.get(name);
  const official = layerNames.get(layer[2]!);
  return official === undefined ? undefined : `layers.${layer[1]}.${official}`;
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
