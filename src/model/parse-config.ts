/**
 * config.json of a DeepSeek-V4 or V4.1 checkpoint, in the published spelling and in the one that transformers writes. Everything is
 * checked here, so that no later code meets a number that cannot be: all problems are listed in one error.
 */
import { ModelError } from "../errors.ts";
import { mostStreams } from "../tensor/ops/hyper-connection-coefficients.ts";
import type { CompressRatio, ModelConfig, RopeConfig, V4Config, YarnConfig } from "./config.ts";
import { ConfigReader } from "./config-reader.ts";
import { readV41Parts } from "./parse-v41-config.ts";

/** How the file says it that the config was made of, for messages. */
export interface ConfigSpelling {
  readonly file: string;
  /** What stands there in place of the keys of config.json. */
  readonly keys: ReadonlyMap<string, string>;
  readonly hint: string;
}

const configJson: ConfigSpelling = {
  file: "config",
  keys: new Map(),
  hint: "Compare it with the config.json that was published with the model",
};

/** Throws a ModelError: code "unsupported-architecture" for another kind of model, "bad-config" with every problem. */
export function parseConfig(json: unknown, where = "config.json", spelling = configJson): ModelConfig {
  const { file, keys, hint } = spelling;
  if (typeof json !== "object" || json === null || Array.isArray(json)) {
    throw new ModelError("The config is not a JSON object", { code: "bad-config", where, hint });
  }
  const reader = new ConfigReader(json as Record<string, unknown>);
  const config = architectureOf(reader, where) === "deepseek-v4.1" ? readV41Config(reader) : readV4Config(reader);
  if (reader.problems.length > 0) {
    const problems = [...new Set(reader.problems)] // what is read for two purposes is wrong once
      .map((problem) => problem.replace(/[a-z_]+(\.[a-z_]+)*/g, (key) => keys.get(key) ?? key));
    throw new ModelError(`The ${file} does not describe a model: ${problems.join("; ")}`, {
      code: "bad-config",
      where,
      hint,
    });
  }
  return config;
}

function architectureOf(reader: ConfigReader, where: string): ModelConfig["architecture"] {
  const type = reader.raw("model_type");
  const names = reader.raw("architectures");
  const architecture = Array.isArray(names) ? String(names[0]) : undefined;
  const found = [type, architecture].filter((name) => name !== undefined).join(", ") || "none is named";
  const refuse = (message: string): never => {
    throw new ModelError(message, {
      code: "unsupported-architecture",
      where,
      hint: "This version runs models of DeepSeek V4 (model_type deepseek_v4) and V4.1 (deepseek_v41)",
    });
  };
  const named = String(type ?? architecture);
  if (/^deepseek_v41(_text)?$/.test(named) || /^DeepseekV41/.test(named)) return "deepseek-v4.1";
  const isV4 = type === "deepseek_v4" || (type === undefined && architecture === "DeepseekV4ForCausalLM");
  if (!isV4) refuse(`The architecture of the model is not supported: ${found}`);
  if (reader.raw("vision_config") !== undefined)
    refuse(`The vision variant of DeepSeek V4 (${found}) is not supported yet`);
  return "deepseek-v4";
}

function readV4Config(r: ConfigReader): V4Config {
  const common = readCommonConfig(r, r, { rmsNormEps: 1e-6, fp8BlockSize: [128, 128] });
  const config: V4Config = {
    ...common,
    architecture: "deepseek-v4",
    compressRatios: readCompressRatios(r, common.numLayers),
    hashRouted: readHashRouted(r, common.numLayers),
  };
  checkCommonConfig(r, config, config.compressRatios.includes(4));
  return config;
}

/** The keys of the text model stand in a section of their own, or at the top in files of the text model alone. */
function readV41Config(top: ConfigReader): ModelConfig {
  const r = top.section("text_config") ?? top;
  const common = readCommonConfig(r, top, { rmsNormEps: 1e-20, fp8BlockSize: [32, 32] });
  const config: ModelConfig = { ...common, ...readV41Parts(r, top, common) };
  checkCommonConfig(r, config, config.indexSourceLayers.length > 0);
  return config;
}

/** Keys that both generations have; `top` holds what is said of the whole file. */
function readCommonConfig(
  r: ConfigReader,
  top: ConfigReader,
  otherwise: { readonly rmsNormEps: number; readonly fp8BlockSize: [number, number] },
) {
  const headDim = r.count("head_dim", { most: 65536 });
  return {
    vocabSize: r.count("vocab_size", { most: 16_777_216 }),
    hiddenSize: r.count("hidden_size", { most: 1_048_576 }),
    numLayers: r.count("num_hidden_layers", { most: 1024 }),
    numHeads: r.count("num_attention_heads", { most: 65536 }),
    headDim,
    ropeHeadDim: readRopeHeadDim(r, headDim),
    queryLoraRank: r.count("q_lora_rank", { most: 1_048_576 }),
    outputGroups: r.count("o_groups", { most: 65536 }),
    outputLoraRank: r.count("o_lora_rank", { most: 1_048_576 }),
    slidingWindow: r.count("sliding_window", { most: 1_048_576 }),
    indexNumHeads: r.count("index_n_heads", { most: 65536 }),
    indexHeadDim: r.count("index_head_dim", { most: 65536 }),
    indexTopK: r.count("index_topk", { most: 1_048_576 }),
    hcMult: r.count("hc_mult", { most: mostStreams, otherwise: 4 }),
    hcSinkhornIterations: r.count("hc_sinkhorn_iters", { most: 1000, otherwise: 20 }),
    hcEps: r.number("hc_eps", { otherwise: 1e-6 }),
    numExperts: r.count("n_routed_experts", { most: 65536 }),
    numExpertsPerToken: r.count("num_experts_per_tok", { most: 65536 }),
    numSharedExperts: r.count("n_shared_experts", { least: 0, most: 256, otherwise: 1 }),
    moeIntermediateSize: r.count("moe_intermediate_size", { most: 1_048_576 }),
    normalizeTopK: r.boolean("norm_topk_prob", true),
    routedScalingFactor: r.number("routed_scaling_factor", { otherwise: 1 }),
    swigluLimit: r.number("swiglu_limit", { otherwise: 10 }),
    rope: { theta: readTheta(r, "rope_theta", "main", 10_000), yarn: undefined },
    compressRope: readCompressRope(r),
    rmsNormEps: r.number("rms_norm_eps", { otherwise: otherwise.rmsNormEps }),
    maxPositionEmbeddings: r.count("max_position_embeddings", { most: 2 ** 31 - 1 }),
    numMtpModules: r.count("num_nextn_predict_layers", { least: 0, most: 16, otherwise: 0 }),
    fp8BlockSize: readBlockSize(top, otherwise.fp8BlockSize),
    bosTokenId: top.count("bos_token_id", { least: 0, most: 16_777_216, otherwise: 0 }),
    eosTokenIds: readEosTokenIds(top),
  };
}

/** What the parts of the config must be to each other. */
function checkCommonConfig(r: ConfigReader, c: ModelConfig, hasIndexer: boolean): void {
  const notLarger = (key: string, most: string, found: number, bound: number) =>
    r.relate([key, most], found <= bound, `${key} is larger than ${most}`);
  r.relate(
    ["num_attention_heads", "o_groups"],
    c.numHeads % c.outputGroups === 0,
    "num_attention_heads is not a multiple of o_groups",
  );
  r.relate(["qk_rope_head_dim"], c.ropeHeadDim % 2 === 0, "qk_rope_head_dim is odd");
  notLarger("qk_rope_head_dim", "head_dim", c.ropeHeadDim, c.headDim);
  if (hasIndexer) notLarger("qk_rope_head_dim", "index_head_dim", c.ropeHeadDim, c.indexHeadDim);
  notLarger("num_experts_per_tok", "n_routed_experts", c.numExpertsPerToken, c.numExperts);
  r.require(
    c.eosTokenIds.every((id) => id < c.vocabSize),
    "eos_token_id is not in the vocabulary",
  );
  r.require(c.bosTokenId < c.vocabSize, "bos_token_id is not in the vocabulary");
  const scoring = r.raw("scoring_func");
  r.require(
    scoring === undefined || scoring === "sqrtsoftplus",
    `scoring_func ${JSON.stringify(scoring)} is not sqrtsoftplus`,
  );
  for (const [key, only] of Object.entries(onlyValues)) {
    const value = r.raw(key) ?? only;
    r.require(value === only, `${key} is ${JSON.stringify(value)}, not ${JSON.stringify(only)}`);
  }
  const keyHeads = r.raw("num_key_value_heads");
  r.require(keyHeads === undefined || keyHeads === 1, "num_key_value_heads is not 1");
  r.require(r.raw("tie_word_embeddings") !== true, "tie_word_embeddings is true");
}

/** What other architectures choose: a model that says another value would be computed as what it is not. */
const onlyValues: Readonly<Record<string, unknown>> = {
  hidden_act: "silu",
  topk_method: "noaux_tc",
  attention_bias: false,
};

function readRopeHeadDim(r: ConfigReader, headDim: number): number {
  const partial = r.raw("partial_rotary_factor");
  if (r.raw("qk_rope_head_dim") === undefined && typeof partial === "number") return Math.round(partial * headDim);
  return r.count("qk_rope_head_dim", { most: 65536 });
}

const ratioOfLayerType: Readonly<Record<string, CompressRatio>> = {
  sliding_attention: 0,
  compressed_sparse_attention: 4,
  heavily_compressed_attention: 128,
};

/** One a layer; the published list goes on with the MTP modules. */
function readCompressRatios(r: ConfigReader, numLayers: number): CompressRatio[] {
  const listed = r.raw("compress_ratios");
  const types = r.raw("layer_types");
  const ratios = Array.isArray(listed)
    ? listed
    : Array.isArray(types)
      ? types.map((type) => (Object.hasOwn(ratioOfLayerType, String(type)) ? ratioOfLayerType[String(type)] : type))
      : [];
  r.require(
    ratios.length >= numLayers,
    `${listed === undefined && types !== undefined ? "layer_types" : "compress_ratios"} has ${ratios.length} entries for ${numLayers} layers`,
  );
  const ofLayers = ratios.slice(0, numLayers);
  const wrong = ofLayers.find((ratio) => ratio !== 0 && ratio !== 4 && ratio !== 128);
  r.require(wrong === undefined, `the compress ratio ${JSON.stringify(wrong)} is not 0, 4 or 128`);
  return ofLayers as CompressRatio[]; // checked above; a wrong one ends in the error
}

function readHashRouted(r: ConfigReader, numLayers: number): boolean[] {
  const types = r.raw("mlp_layer_types");
  if (r.raw("num_hash_layers") === undefined && Array.isArray(types)) {
    r.require(types.length >= numLayers, `mlp_layer_types has ${types.length} entries for ${numLayers} layers`);
    const wrong = types.find((type) => type !== "hash_moe" && type !== "moe");
    r.require(wrong === undefined, `the layer type ${JSON.stringify(wrong)} is not hash_moe or moe`);
    return types.slice(0, numLayers).map((type) => type === "hash_moe");
  }
  const hashLayers = r.count("num_hash_layers", { least: 0, most: 1024, otherwise: 0 });
  return Array.from({ length: Math.min(numLayers, 1024) }, (_, l) => l < hashLayers);
}

function readTheta(r: ConfigReader, key: string, nested: "main" | "compress", otherwise: number): number {
  const inside = r.section("rope_parameters")?.section(nested);
  return inside?.raw("rope_theta") === undefined
    ? r.number(key, { otherwise, positive: true })
    : inside.number("rope_theta", { otherwise, positive: true });
}

function readCompressRope(r: ConfigReader): RopeConfig {
  const theta = readTheta(r, "compress_rope_theta", "compress", 160_000);
  const yarn = readYarn(r.section("rope_scaling") ?? r.section("rope_parameters")?.section("compress"));
  // Its ramp divides by the logarithm of theta.
  r.require(yarn === undefined || theta > 1, `compress_rope_theta is ${theta}: with YaRN it must be above 1`);
  return { theta, yarn };
}

function readYarn(r: ConfigReader | undefined): YarnConfig | undefined {
  const type = r?.raw("type") ?? r?.raw("rope_type");
  r?.require(type !== undefined || r.raw("factor") === undefined, "rope_scaling has a factor and no type");
  if (r === undefined || type === undefined || type === "default") return undefined;
  r.require(type === "yarn", `rope_scaling.type is ${JSON.stringify(type)}, not yarn`);
  return {
    factor: r.number("factor", { positive: true }),
    betaFast: r.number("beta_fast", { otherwise: 32, positive: true }),
    betaSlow: r.number("beta_slow", { otherwise: 1, positive: true }),
    originalContext: r.count("original_max_position_embeddings", { most: 2 ** 31 - 1 }),
  };
}

function readBlockSize(r: ConfigReader, otherwise: [number, number]): [number, number] {
  const size = r.section("quantization_config")?.raw("weight_block_size");
  if (size === undefined || size === null) return otherwise;
  const isPair =
    Array.isArray(size) && size.length === 2 && size.every((n) => Number.isInteger(n) && n > 0 && n <= 65536);
  r.require(isPair, "weight_block_size is not a pair of block sizes");
  return isPair ? (size as [number, number]) : otherwise;
}

function readEosTokenIds(r: ConfigReader): number[] {
  const value = r.raw("eos_token_id") ?? 1;
  const ids: unknown[] = Array.isArray(value) ? value : [value];
  const valid = ids.length > 0 && ids.every((id) => Number.isInteger(id) && (id as number) >= 0);
  r.require(valid, "eos_token_id is not a token id or a list of them");
  return valid ? (ids as number[]) : [1];
}
