/**
 * Writes a model of random weights and a given shape in GGUF, to time a machine without a download. Experts have the chosen
 * type, the other matrices Q8_0 (the first output projection F16), small tensors F32, as in quantised copies of real models.
 */
import { UsageError } from "../errors.ts";
import { layOutGguf } from "../format/gguf-writer.ts";
import type { ModelConfig } from "../model/config.ts";
import { ggufMetadata, ggufName } from "../model/gguf-names.ts";
import { drafterParameters, modelParameters, type Parameter } from "../model/parameters.ts";
import { parseConfig } from "../model/parse-config.ts";
import { type GgmlType, ggmlTypes } from "../quant/ggml-types.ts";
import { countElements } from "../tensor/shape.ts";
import { letterOfByte } from "../tokenizer/byte-alphabet.ts";
import { type OutputFile, writeWhole } from "./output-file.ts";
import { fillRandom, RandomBytes, type RandomType } from "./random-weights.ts";
import { synthesizeCheckpoint } from "./synthesize-checkpoint.ts";
import { v41PresetJson } from "./v41-presets.ts";

export const synthesizeTypes = ["f32", "q8_0", "q4_0", "mxfp4"] as const;
export type SynthesizeType = (typeof synthesizeTypes)[number];

export interface SynthesizeOptions {
  readonly preset: string;
  readonly type: SynthesizeType;
  readonly seed?: number;
  /** For V4: write a module for multi-token prediction as well. Those of V4.1 have a drafter anyway. */
  readonly mtp?: boolean;
  /** For V4.1: bytes of each table of its n-gram memory. Default: 256 MiB. */
  readonly engramBytes?: number;
  /** For V4.1: zeros that take no room on disk, to try what the size of a model changes. */
  readonly sparse?: boolean;
  readonly onProgress?: (writtenBytes: number, totalBytes: number) => void;
  readonly signal?: AbortSignal;
}

/** Bytes of each table of Engram. */
const defaultEngramBytes = 256 << 20;

/**
 * Returns the number of parameters and of bytes written. A file that is there is replaced when all is written; what ends the writing
 * leaves it as it was. V4.1 has no GGUF form: its presets write a folder in the official layout, with the released types or all in F32.
 * Throws a ModelError (code "file") where nothing can be written.
 */
export async function synthesizeModel(
  path: string,
  options: SynthesizeOptions,
): Promise<{ parameters: number; bytes: number }> {
  const preset = presetConfig(options.preset, options.engramBytes);
  const config = options.mtp && preset.architecture === "deepseek-v4" ? { ...preset, numMtpModules: 1 } : preset;
  if (config.architecture === "deepseek-v4.1") {
    const json = v41PresetJson(options.preset, options.engramBytes ?? defaultEngramBytes)!;
    return synthesizeCheckpoint(path, json, config, options);
  }
  const parameters = [...modelParameters(config), ...drafterParameters(config)];
  const types = parameters.map((parameter) => typeOf(parameter, options.type));
  const tensors = parameters.map(({ name, shape }, i) => ({
    name: ggufName(name, config.numLayers),
    shape,
    type: types[i]!,
  }));
  const metadata = [...ggufMetadata(config, options.preset), ...byteTokenizer(config.vocabSize)];
  const { header, places, fileBytes } = layOutGguf(metadata, tensors);
  await writeWhole(path, async (file) => {
    await file.write(header, 0);
    const random = new RandomBytes(options.seed ?? 1);
    for (const [i, parameter] of parameters.entries()) {
      await writeTensor(file, parameter, types[i]!, places[i]!, config, random, options.signal);
      options.onProgress?.(places[i]!.begin + places[i]!.bytes, fileBytes);
    }
    await file.resize(fileBytes);
  });
  return {
    parameters: parameters.reduce((sum, { shape }) => sum + countElements(shape), 0),
    bytes: fileBytes,
  };
}

/**
 * tiny (seconds), bench (2.8 B parameters), v4-flash:N (the real Flash with N of its layers); the same of V4.1 as v4.1-tiny,
 * v4.1-bench and v4.1-flash:N.
 */
export function presetConfig(preset: string, engramBytes = defaultEngramBytes): ModelConfig {
  const json = v41PresetJson(preset, engramBytes);
  if (json !== undefined) return parseConfig(json);
  const flash = /^v4-flash:(\d{1,2})$/.exec(preset);
  const layers = Number(flash?.[1] ?? 0);
  if (flash !== null && layers >= 1 && layers <= 43)
    return parseConfig({ ...common, ...flashShape, ...firstLayers(layers) });
  if (preset === "tiny") return parseConfig({ ...common, ...tinyShape });
  if (preset === "bench") return parseConfig({ ...common, ...benchShape });
  throw new UsageError(`There is no preset ${JSON.stringify(preset)}`, {
    where: "--preset",
    hint: "Presets are tiny, bench, v4-flash:N (N from 1 to 43), v4.1-tiny, v4.1-bench and v4.1-flash:N (N from 1 to 40)",
  });
}

const common = {
  model_type: "deepseek_v4",
  max_position_embeddings: 1 << 20,
  n_shared_experts: 1,
  rope_theta: 10_000,
  compress_rope_theta: 160_000,
  rope_scaling: { type: "yarn", factor: 16, original_max_position_embeddings: 65_536, beta_fast: 32, beta_slow: 1 },
  routed_scaling_factor: 1.5,
  rms_norm_eps: 1e-6,
};

const tinyShape = {
  vocab_size: 1024,
  hidden_size: 256,
  num_hidden_layers: 6,
  num_attention_heads: 4,
  head_dim: 128,
  qk_rope_head_dim: 32,
  q_lora_rank: 128,
  o_groups: 2,
  o_lora_rank: 64,
  n_routed_experts: 8,
  num_experts_per_tok: 2,
  moe_intermediate_size: 128,
  index_n_heads: 4,
  index_head_dim: 64,
  index_topk: 16,
  sliding_window: 16,
  num_hash_layers: 1,
  compress_ratios: [0, 0, 4, 128, 4, 128],
};

const benchShape = {
  vocab_size: 32_768,
  hidden_size: 2048,
  num_hidden_layers: 12,
  num_attention_heads: 16,
  head_dim: 512,
  qk_rope_head_dim: 64,
  q_lora_rank: 512,
  o_groups: 4,
  o_lora_rank: 512,
  n_routed_experts: 32,
  num_experts_per_tok: 6,
  moe_intermediate_size: 1024,
  index_n_heads: 16,
  index_head_dim: 128,
  index_topk: 512,
  sliding_window: 128,
  num_hash_layers: 1,
  compress_ratios: [0, 0, ...[4, 128, 4, 128, 4, 128, 4, 128, 4, 128]],
};

/** The published config of DeepSeek V4 Flash. */
const flashShape = {
  vocab_size: 129_280,
  hidden_size: 4096,
  num_attention_heads: 64,
  head_dim: 512,
  qk_rope_head_dim: 64,
  q_lora_rank: 1024,
  o_groups: 8,
  o_lora_rank: 1024,
  n_routed_experts: 256,
  num_experts_per_tok: 6,
  moe_intermediate_size: 2048,
  index_n_heads: 64,
  index_head_dim: 128,
  index_topk: 512,
  sliding_window: 128,
};

/** A few layers stand for the whole: of two or more, one each of the kinds that make up nearly all of it. */
function firstLayers(layers: number) {
  const whole = [0, 0, ...Array.from({ length: 41 }, (_, i) => (i % 2 === 0 ? 4 : 128))];
  const ratios = layers < 5 ? [4, 128, 4, 128].slice(0, layers) : whole.slice(0, layers);
  return { num_hidden_layers: layers, compress_ratios: ratios, num_hash_layers: layers < 5 ? 0 : 3 };
}

function typeOf({ name, kind, shape }: Parameter, experts: SynthesizeType): GgmlType {
  const type = (name: string) => [...ggmlTypes.values()].find((candidate) => candidate.name === name)!;
  if (kind === "integers") return type("I32");
  const isSmall =
    kind === "vector" || name.includes("hc_") || name.endsWith(".ape") || name.endsWith("ffn.gate.weight");
  if (isSmall || experts === "f32") return type("F32");
  if (shape.length === 3) return type(experts.toUpperCase());
  return type(name.endsWith("wo_a.weight") ? "F16" : "Q8_0");
}

/** Bytes that are made and written at once: a whole number of blocks of every type. */
const pieceBytes = 4 * 17 * 18 * 34 * 16;

async function writeTensor(
  file: OutputFile,
  parameter: Parameter,
  type: GgmlType,
  { begin, bytes }: { readonly begin: number; readonly bytes: number },
  { numExperts }: ModelConfig,
  random: RandomBytes,
  signal: AbortSignal | undefined,
): Promise<void> {
  const { name, shape, kind } = parameter;
  if (kind === "integers" || kind === "vector") {
    const values = kind === "integers" ? randomExperts(shape, numExperts, random) : vector(name, shape[0]!, random);
    await file.write(new Uint8Array(values.buffer), begin);
    return;
  }
  const spread = name === "embed.weight" ? 1 : shape.at(-1)! ** -0.5;
  for (let done = 0; done < bytes; done += pieceBytes) {
    signal?.throwIfAborted();
    const piece = new Uint8Array(Math.min(pieceBytes, bytes - done));
    fillRandom(type.name as RandomType, piece, spread, random); // typeOf gives no other
    await file.write(piece, begin + done);
  }
}

function vector(name: string, length: number, random: RandomBytes): Float32Array {
  if (name.endsWith("norm.weight")) return new Float32Array(length).fill(1);
  if (name.endsWith("_scale")) return new Float32Array(length).fill(0.5);
  return Float32Array.from({ length }, () => random.next() * 0.2);
}

/** Rows of different experts. */
function randomExperts([tokens, k]: readonly number[], numExperts: number, random: RandomBytes): Int32Array {
  const table = new Int32Array(tokens! * k!);
  for (let t = 0; t < tokens!; t++) {
    const first = Math.floor(((random.next() + 1) / 2) * numExperts);
    for (let i = 0; i < k!; i++)
      table[t * k! + i] = (first + i * Math.max(1, Math.floor(numExperts / k!))) % numExperts;
  }
  return table;
}

/** Two special tokens, the 256 bytes, and fillers up to the size of the vocabulary. */
function byteTokenizer(vocabSize: number): readonly (readonly [string, string, unknown])[] {
  const tokens = ["<bos>", "<eos>", ...letterOfByte, "ab"];
  for (let i = tokens.length; i < vocabSize; i++) tokens.push(`f${i}`);
  const types = tokens.map((_, id) => (id < 2 ? 3 : 1));
  return [
    ["tokenizer.ggml.model", "STRING", "gpt2"],
    ["tokenizer.ggml.pre", "STRING", "deepseek-v3"],
    ["tokenizer.ggml.tokens", "ARRAY:STRING", tokens],
    ["tokenizer.ggml.token_type", "ARRAY:INT32", types],
    ["tokenizer.ggml.merges", "ARRAY:STRING", ["a b"]],
    ["tokenizer.ggml.bos_token_id", "UINT32", 0],
    ["tokenizer.ggml.eos_token_id", "UINT32", 1],
  ];
}
