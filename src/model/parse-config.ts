/**
 * config.json of a DeepSeek-V4 checkpoint, in the published spelling and in the one that transformers writes. Everything is
 * checked here, so that no later code meets a number that cannot be: all problems are listed in one error.
 */
import { ModelError } from "../errors.ts";
import type { CompressRatio, ModelConfig, RopeConfig, YarnConfig } from "./config.ts";

/** Throws a ModelError: code "unsupported-architecture" for another kind of model, "bad-config" with every problem. */
export function parseConfig(json: unknown, where = "config.json"): ModelConfig {
  if (typeof json !== "object" || json === null || Array.isArray(json)) {
    throw new ModelError("The config is not a JSON object", { code: "bad-config", where });
  }
  const reader = new ConfigReader(json as Record<string, unknown>);
  requireArchitecture(reader, where);
  const config = readConfig(reader);
  if (reader.problems.length > 0) {
    throw new ModelError(`The config does not describe a model: ${reader.problems.join("; ")}`, {
      code: "bad-config",
      where,
      hint: "Compare it with the config.json that was published with the model",
    });
  }
  return config;
}

function requireArchitecture(reader: ConfigReader, where: string): void {
  const type = reader.raw("model_type");
  const names = reader.raw("architectures");
  const architecture = Array.isArray(names) ? String(names[0]) : undefined;
  const found = [type, architecture].filter((name) => name !== undefined).join(", ") || "none is named";
  const refuse = (message: string): never => {
    throw new ModelError(message, {
      code: "unsupported-architecture",
      where,
      hint: "This version runs text models of DeepSeek V4 (model_type deepseek_v4)",
    });
  };
  if (
    type === "deepseek_v41" ||
    /DeepseekV41|DeepseekV4_1/i.test(architecture ?? "") ||
    reader.raw("text_config") !== undefined
  ) {
    if (/deepseek/i.test(found)) refuse(`DeepSeek V4.1 models (${found}) are not supported yet`);
  }
  const isV4 = type === "deepseek_v4" || (type === undefined && architecture === "DeepseekV4ForCausalLM");
  if (!isV4) refuse(`The architecture of the model is not supported: ${found}`);
  if (reader.raw("vision_config") !== undefined)
    refuse(`The vision variant of DeepSeek V4 (${found}) is not supported yet`);
}

function readConfig(r: ConfigReader): ModelConfig {
  const numLayers = r.count("num_hidden_layers", { most: 1024 });
  const headDim = r.count("head_dim", { most: 65536 });
  const ropeHeadDim = readRopeHeadDim(r, headDim);
  const config: ModelConfig = {
    architecture: "deepseek-v4",
    vocabSize: r.count("vocab_size", { most: 16_777_216 }),
    hiddenSize: r.count("hidden_size", { most: 1_048_576 }),
    numLayers,
    numHeads: r.count("num_attention_heads", { most: 65536 }),
    headDim,
    ropeHeadDim,
    queryLoraRank: r.count("q_lora_rank", { most: 1_048_576 }),
    outputGroups: r.count("o_groups", { most: 65536 }),
    outputLoraRank: r.count("o_lora_rank", { most: 1_048_576 }),
    slidingWindow: r.count("sliding_window", { most: 1_048_576 }),
    compressRatios: readCompressRatios(r, numLayers),
    indexNumHeads: r.count("index_n_heads", { most: 65536 }),
    indexHeadDim: r.count("index_head_dim", { most: 65536 }),
    indexTopK: r.count("index_topk", { most: 1_048_576 }),
    hcMult: r.count("hc_mult", { most: 64, otherwise: 4 }),
    hcSinkhornIterations: r.count("hc_sinkhorn_iters", { most: 1000, otherwise: 20 }),
    hcEps: r.number("hc_eps", { otherwise: 1e-6 }),
    numExperts: r.count("n_routed_experts", { most: 65536 }),
    numExpertsPerToken: r.count("num_experts_per_tok", { most: 65536 }),
    numSharedExperts: r.count("n_shared_experts", { least: 0, most: 256, otherwise: 1 }),
    moeIntermediateSize: r.count("moe_intermediate_size", { most: 1_048_576 }),
    hashRouted: readHashRouted(r, numLayers),
    normalizeTopK: r.boolean("norm_topk_prob", true),
    routedScalingFactor: r.number("routed_scaling_factor", { otherwise: 1 }),
    swigluLimit: r.number("swiglu_limit", { otherwise: 10 }),
    rope: { theta: readTheta(r, "rope_theta", "main", 10_000), yarn: undefined },
    compressRope: readCompressRope(r),
    rmsNormEps: r.number("rms_norm_eps", { otherwise: 1e-6 }),
    maxPositionEmbeddings: r.count("max_position_embeddings", { most: 2 ** 31 - 1 }),
    numMtpModules: r.count("num_nextn_predict_layers", { least: 0, most: 16, otherwise: 0 }),
    fp8BlockSize: readBlockSize(r),
    bosTokenId: r.count("bos_token_id", { least: 0, most: 16_777_216, otherwise: 0 }),
    eosTokenIds: readEosTokenIds(r),
  };
  checkTogether(r, config);
  return config;
}

/** What the parts of the config must be to each other. */
function checkTogether(r: ConfigReader, c: ModelConfig): void {
  r.require(c.numHeads % c.outputGroups === 0, "num_attention_heads is not a multiple of o_groups");
  r.require(c.ropeHeadDim % 2 === 0, "qk_rope_head_dim is odd");
  r.require(c.ropeHeadDim <= c.headDim, "qk_rope_head_dim is larger than head_dim");
  r.require(
    c.ropeHeadDim <= c.indexHeadDim || !c.compressRatios.includes(4),
    "qk_rope_head_dim is larger than index_head_dim",
  );
  r.require(c.numExpertsPerToken <= c.numExperts, "num_experts_per_tok is larger than n_routed_experts");
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
  const keyHeads = r.raw("num_key_value_heads");
  r.require(keyHeads === undefined || keyHeads === 1, "num_key_value_heads is not 1");
  r.require(r.raw("tie_word_embeddings") !== true, "tie_word_embeddings is true");
}

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
    `compress_ratios (or layer_types) has ${ratios.length} entries for ${numLayers} layers`,
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
  return { theta, yarn: readYarn(r.section("rope_scaling") ?? r.section("rope_parameters")?.section("compress")) };
}

function readYarn(r: ConfigReader | undefined): YarnConfig | undefined {
  const type = r?.raw("type") ?? r?.raw("rope_type");
  if (r === undefined || type === undefined || type === "default") return undefined;
  r.require(type === "yarn", `rope_scaling of the type ${JSON.stringify(type)} is not yarn`);
  return {
    factor: r.number("factor", { positive: true }),
    betaFast: r.number("beta_fast", { otherwise: 32, positive: true }),
    betaSlow: r.number("beta_slow", { otherwise: 1, positive: true }),
    originalContext: r.count("original_max_position_embeddings", { most: 2 ** 31 - 1 }),
  };
}

function readBlockSize(r: ConfigReader): [number, number] {
  const size = r.section("quantization_config")?.raw("weight_block_size");
  if (size === undefined || size === null) return [128, 128];
  const isPair =
    Array.isArray(size) && size.length === 2 && size.every((n) => Number.isInteger(n) && n > 0 && n <= 65536);
  r.require(isPair, "weight_block_size is not a pair of block sizes");
  return isPair ? (size as [number, number]) : [128, 128];
}

function readEosTokenIds(r: ConfigReader): number[] {
  const value = r.raw("eos_token_id") ?? 1;
  const ids: unknown[] = Array.isArray(value) ? value : [value];
  const valid = ids.length > 0 && ids.every((id) => Number.isInteger(id) && (id as number) >= 0);
  r.require(valid, "eos_token_id is not a token id or a list of them");
  return valid ? (ids as number[]) : [1];
}

/** Reads keys of one JSON object and collects what is wrong with them. */
class ConfigReader {
  readonly problems: string[];
  readonly #json: Readonly<Record<string, unknown>>;
  readonly #prefix: string;

  constructor(json: Readonly<Record<string, unknown>>, prefix = "", problems: string[] = []) {
    this.#json = json;
    this.#prefix = prefix;
    this.problems = problems;
  }

  raw(key: string): unknown {
    return Object.hasOwn(this.#json, key) ? this.#json[key] : undefined;
  }

  section(key: string): ConfigReader | undefined {
    const value = this.raw(key);
    if (typeof value !== "object" || value === null || Array.isArray(value)) return undefined;
    return new ConfigReader(value as Record<string, unknown>, `${this.#prefix}${key}.`, this.problems);
  }

  require(condition: boolean, problem: string): void {
    if (!condition) this.problems.push(problem);
  }

  /** A whole number; where it is wrong, the least legal value stands in until the error is thrown. */
  count(key: string, { least = 1, most, otherwise }: { least?: number; most: number; otherwise?: number }): number {
    const value = this.raw(key) ?? otherwise;
    if (typeof value === "number" && Number.isInteger(value) && value >= least && value <= most) return value;
    this.#wrong(key, value, `a whole number from ${least} to ${most}`);
    return Math.max(least, 1);
  }

  number(key: string, { otherwise, positive = false }: { otherwise?: number; positive?: boolean }): number {
    const value = this.raw(key) ?? otherwise;
    if (typeof value === "number" && Number.isFinite(value) && (positive ? value > 0 : value >= 0)) return value;
    this.#wrong(key, value, positive ? "a number above 0" : "a number of at least 0");
    return 1;
  }

  boolean(key: string, otherwise: boolean): boolean {
    const value = this.raw(key) ?? otherwise;
    if (typeof value === "boolean") return value;
    this.#wrong(key, value, "true or false");
    return otherwise;
  }

  #wrong(key: string, value: unknown, expected: string): void {
    const name = `${this.#prefix}${key}`;
    const shown = JSON.stringify(value)?.slice(0, 60);
    this.problems.push(value === undefined ? `${name} is missing` : `${name} is ${shown}, not ${expected}`);
  }
}
