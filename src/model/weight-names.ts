/**
 * Tensor names of files, translated into the official ones. Three spellings exist: DeepSeek's own; transformers' module
 * names (state dicts); and what transformers' save_pretrained writes, which is DeepSeek's with `model.` in front and some
 * names of its own. Routed experts come one by one, or stacked with gate and up rows in one tensor.
 */

/** Transformers' names below `model.layers.N.` and the official ones below `layers.N.`. */
const layerNames: readonly (readonly [string, string])[] = [
  ["input_layernorm.weight", "attn_norm.weight"],
  ["post_attention_layernorm.weight", "ffn_norm.weight"],
  ["attn_hc.", "hc_attn_"],
  ["ffn_hc.", "hc_ffn_"],
  ["self_attn.q_a_proj.", "attn.wq_a."],
  ["self_attn.q_a_norm.", "attn.q_norm."],
  ["self_attn.q_b_proj.", "attn.wq_b."],
  ["self_attn.kv_proj.", "attn.wkv."],
  ["self_attn.kv_norm.", "attn.kv_norm."],
  ["self_attn.sinks", "attn.attn_sink"],
  ["self_attn.o_a_proj.", "attn.wo_a."],
  ["self_attn.o_b_proj.", "attn.wo_b."],
  ["self_attn.compressor.indexer.q_b_proj.", "attn.indexer.wq_b."],
  ["self_attn.compressor.indexer.scorer.weights_proj.", "attn.indexer.weights_proj."],
  ["self_attn.compressor.indexer.weights_proj.", "attn.indexer.weights_proj."],
  ["self_attn.compressor.indexer.kv_proj.", "attn.indexer.compressor.wkv."],
  ["self_attn.compressor.indexer.gate_proj.", "attn.indexer.compressor.wgate."],
  ["self_attn.compressor.indexer.position_bias", "attn.indexer.compressor.ape"],
  ["self_attn.compressor.indexer.kv_norm.", "attn.indexer.compressor.norm."],
  ["self_attn.compressor.kv_proj.", "attn.compressor.wkv."],
  ["self_attn.compressor.gate_proj.", "attn.compressor.wgate."],
  ["self_attn.compressor.position_bias", "attn.compressor.ape"],
  ["self_attn.compressor.kv_norm.", "attn.compressor.norm."],
  ["mlp.gate.e_score_correction_bias", "ffn.gate.bias"],
  ["mlp.gate.", "ffn.gate."],
  ["mlp.experts.gate_up_proj", "ffn.experts.w1_w3.weight"],
  ["mlp.experts.down_proj", "ffn.experts.w2.weight"],
  ["mlp.shared_experts.gate_proj.", "ffn.shared_experts.w1."],
  ["mlp.shared_experts.up_proj.", "ffn.shared_experts.w3."],
  ["mlp.shared_experts.down_proj.", "ffn.shared_experts.w2."],
  // What save_pretrained of transformers 5.24 calls attn.kv_norm.
  ["attn.norm.weight", "attn.kv_norm.weight"],
];

const rootNames: ReadonlyMap<string, string> = new Map([
  ["model.embed_tokens.weight", "embed.weight"],
  ["model.embed.weight", "embed.weight"],
  ["lm_head.weight", "head.weight"],
  ["model.norm.weight", "norm.weight"],
  ["model.hc_head.hc_fn", "hc_head_fn"],
  ["model.hc_head.hc_base", "hc_head_base"],
  ["model.hc_head.hc_scale", "hc_head_scale"],
]);

/** The parameter that holds gate and up rows of all experts of a layer, [experts, 2 * width, hiddenSize]. */
export const stackedGateUp = "ffn.experts.w1_w3.weight";

/** A name in a file as the official name. Scales of quantised weights end in `.scale`. Unknown names stay as they are. */
export function officialName(name: string): string {
  const weight = name.replace(/\.weight_scale_inv$/, ".weight");
  const translated = translate(weight);
  return weight === name ? translated : translated.replace(/\.weight$/, ".scale");
}

function translate(name: string): string {
  const root = rootNames.get(name);
  if (root !== undefined) return root;
  const layer = /^(?:model\.)?(layers\.\d+\.)(.*)$/s.exec(name);
  if (layer === null) return name.replace(/^model\.(hc_head_|mtp\.)/, "$1");
  const [, prefix, rest] = layer;
  const known = layerNames.find(([from]) => rest!.startsWith(from));
  return prefix! + (known === undefined ? rest! : known[1] + rest!.slice(known[0].length));
}

/** Whether a tensor of this official name belongs to the vision part. */
export function isVisionTensor(official: string): boolean {
  return /^(vision\.|aligner\.|image_(start|newline|end)$)/.test(official);
}
