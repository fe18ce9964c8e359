/**
 * Writes a V4.1 model of random weights as a folder in the official layout: FP8 tiles and FP4 experts with their scales, BF16 for
 * the rest, the tables of Engram in a file of their own. To time a machine without a download.
 */
import { rmdirSync, rmSync } from "node:fs";
import { mkdir } from "node:fs/promises";
import { join } from "node:path";
import { dialects, token } from "../chat/dialect.ts";
import type { V41Config } from "../model/config.ts";
import { drafterParameters, engramTables, modelParameters, type Parameter } from "../model/parameters.ts";
import { countElements } from "../tensor/shape.ts";
import { letterOfByte } from "../tokenizer/byte-alphabet.ts";
import { deepseekPatterns } from "../tokenizer/split-words.ts";
import { beforeExit, type OutputFile, unwritable, writeWhole } from "./output-file.ts";
import { fillRandom, RandomBytes } from "./random-weights.ts";
import type { SynthesizeOptions } from "./synthesize-model.ts";

/** A tensor that is written: its bytes come from `fill`, piece by piece. */
interface PlannedTensor {
  readonly name: string;
  readonly dtype: string;
  readonly shape: readonly number[];
  readonly bytes: number;
  readonly fill: (piece: Uint8Array, random: RandomBytes) => void;
}

export async function synthesizeCheckpoint(
  folder: string,
  json: Readonly<Record<string, unknown>>,
  config: V41Config,
  { type, seed, sparse, onProgress, signal }: SynthesizeOptions,
): Promise<{ parameters: number; bytes: number }> {
  const plain = type === "f32";
  const parameters = [...modelParameters(config), ...drafterParameters(config)];
  const tables = engramTables(config);
  const files = [parameters, tables].filter((list) => list.length > 0);
  const planned = files.map((list) => list.flatMap((parameter) => planTensors(parameter, config, plain)));
  const total = planned.flat().reduce((sum, { bytes }) => sum + bytes, 0);
  const out = new OutputFolder(folder);
  await out.fill(async () => {
    await out.writeJson("config.json", json);
    await out.writeJson("tokenizer.json", byteTokenizerJson(config.vocabSize));
    if (config.engram !== undefined) {
      const map = Array.from({ length: config.vocabSize }, (_, id) => id);
      await out.writeJson("engram_token_map.json", map);
    }
    const random = new RandomBytes(seed ?? 1);
    const weightMap: Record<string, string> = {};
    let written = 0;
    for (const [i, tensors] of planned.entries()) {
      const part = (n: number) => String(n).padStart(5, "0");
      const name = `model-${part(i + 1)}-of-${part(planned.length)}.safetensors`;
      for (const tensor of tensors) weightMap[tensor.name] = name;
      await out.write(name, async (file) => {
        const { header, end } = layOut(tensors);
        await file.write(header, 0);
        if (sparse) return file.resize(end);
        let begin = header.length;
        for (const tensor of tensors) {
          await writeTensor(file, tensor, begin, random, signal, (bytes) => {
            written += bytes;
            onProgress?.(written, total);
          });
          begin += tensor.bytes;
        }
      });
    }
    await out.writeJson("model.safetensors.index.json", { metadata: { total_size: total }, weight_map: weightMap });
  });
  const count = [...parameters, ...tables].reduce((sum, { shape }) => sum + countElements(shape), 0);
  return { parameters: count, bytes: total };
}

/** Bytes that are made and written at once. */
const pieceBytes = 4 << 20;

/** The files of a folder: all, or none of them and no new folder. */
class OutputFolder {
  readonly #folder: string;
  readonly #written: string[] = [];

  constructor(folder: string) {
    this.#folder = folder;
  }

  async fill(write: () => Promise<void>): Promise<void> {
    const made = await mkdir(this.#folder, { recursive: true }).catch((error) => {
      throw unwritable(error, this.#folder);
    });
    using _ = beforeExit(() => this.#remove(made !== undefined));
    try {
      await write();
    } catch (error) {
      this.#remove(made !== undefined);
      throw error;
    }
  }

  /** At once: it may be the last that the process does. */
  #remove(isNew: boolean): void {
    for (const path of this.#written) rmSync(path, { force: true });
    try {
      if (isNew) rmdirSync(this.#folder);
    } catch {
      // somebody else put something there
    }
  }

  async write(name: string, write: (file: OutputFile) => Promise<void>): Promise<void> {
    const path = join(this.#folder, name);
    await writeWhole(path, write);
    this.#written.push(path);
  }

  writeJson(name: string, value: unknown): Promise<void> {
    return this.write(name, (file) => file.write(new TextEncoder().encode(JSON.stringify(value, undefined, 2)), 0));
  }
}

/** The beginning of a file; `end` is where the last tensor will end. */
function layOut(tensors: readonly PlannedTensor[]): { header: Uint8Array; end: number } {
  const header: Record<string, unknown> = {};
  let end = 0;
  for (const { name, dtype, shape, bytes } of tensors) {
    header[name] = { dtype, shape, data_offsets: [end, end + bytes] };
    end += bytes;
  }
  const text = JSON.stringify(header);
  // Data begins at a multiple of 64: rows of the largest vectors are then aligned.
  const json = new TextEncoder().encode(text.padEnd(Math.ceil((8 + text.length) / 64) * 64 - 8));
  const bytes = new Uint8Array(8 + json.length);
  new DataView(bytes.buffer).setBigUint64(0, BigInt(json.length), true);
  bytes.set(json, 8);
  return { header: bytes, end: bytes.length + end };
}

async function writeTensor(
  file: OutputFile,
  { bytes, fill }: PlannedTensor,
  begin: number,
  random: RandomBytes,
  signal: AbortSignal | undefined,
  onPiece: (bytes: number) => void,
): Promise<void> {
  for (let done = 0; done < bytes; done += pieceBytes) {
    signal?.throwIfAborted();
    const piece = new Uint8Array(Math.min(pieceBytes, bytes - done));
    fill(piece, random);
    await file.write(piece, begin + done);
    onPiece(piece.length);
  }
}

/** Matrices that are released in FP8; experts are FP4. */
const fp8Names = /\.(wq_a|wq_b|wkv|wo_a|wo_b|w1|w2|w3|main_proj)\.weight$|engram\.embed\.weight$/;
const floatNames = /(hc_(attn|ffn)_|attn_sink$|gate\.bias)/;

/** The tensors of a parameter as the official files have them: one an expert, scales apart. */
function planTensors(parameter: Parameter, config: V41Config, plain: boolean): PlannedTensor[] {
  const { name, shape, kind } = parameter;
  const spread = name === "embed.weight" ? 1 : shape.at(-1)! ** -0.5;
  if (shape.length === 3) {
    const [count, rows, columns] = shape as [number, number, number];
    return Array.from({ length: count }, (_, e) => {
      const own = name.replace(".experts.", `.experts.${e}.`);
      return plain ? [floats(own, [rows, columns], "F32", spread)] : fp4(own, rows, columns, spread);
    }).flat();
  }
  if (kind === "vector") return [vector(name, shape, plain || floatNames.test(name) ? "F32" : "BF16")];
  const isFp8 = fp8Names.test(name) && !/compressor\.wkv/.test(name);
  if (plain || !isFp8) return [floats(name, shape, plain || floatNames.test(name) ? "F32" : "BF16", spread)];
  // Values of a table stand for embeddings: about 1.
  return fp8(name, shape, parameter.scaleBlock ?? config.fp8BlockSize, parameter.scaleBlock ? 1 : spread);
}

function floats(name: string, shape: readonly number[], dtype: "F32" | "BF16", spread: number): PlannedTensor {
  const bytes = countElements(shape) * (dtype === "F32" ? 4 : 2);
  return { name, dtype, shape, bytes, fill: (piece, random) => fillRandom(dtype, piece, spread, random) };
}

function vector(name: string, shape: readonly number[], dtype: "F32" | "BF16"): PlannedTensor {
  if (!name.endsWith("norm.weight") && !name.endsWith("_scale")) return floats(name, shape, dtype, 0.1);
  const value = name.endsWith("_scale") ? 0.5 : 1;
  const bits = new Uint16Array(Float32Array.of(value).buffer);
  const words = dtype === "F32" ? [bits[0]!, bits[1]!] : [bits[1]!];
  const fill = (piece: Uint8Array) => {
    const into = new Uint16Array(piece.buffer);
    for (let i = 0; i < into.length; i++) into[i] = words[i % words.length]!;
  };
  return { name, dtype, shape, bytes: countElements(shape) * 2 * words.length, fill };
}

/** Standard deviation of uniform codes. */
const spreadOfE4m3 = 100;
const spreadOfE2m1 = 2.93;

function fp8(
  name: string,
  [rows, columns]: readonly number[],
  [blockRows, blockColumns]: readonly [number, number],
  spread: number,
): PlannedTensor[] {
  const scales = [Math.ceil(rows! / blockRows), Math.ceil(columns! / blockColumns)];
  const codes = (piece: Uint8Array, random: RandomBytes) => {
    random.fill(piece);
    // 0x7f and 0xff are no numbers.
    for (let i = 0; i < piece.length; i++) if ((piece[i]! & 0x7f) === 0x7f) piece[i] = piece[i]! ^ 1;
  };
  return [
    { name, dtype: "F8_E4M3", shape: [rows!, columns!], bytes: rows! * columns!, fill: codes },
    powersOfTwo(name, scales, spread / spreadOfE4m3),
  ];
}

function fp4(name: string, rows: number, columns: number, spread: number): PlannedTensor[] {
  const fill = (piece: Uint8Array, random: RandomBytes) => random.fill(piece);
  return [
    { name, dtype: "I8", shape: [rows, columns / 2], bytes: (rows * columns) / 2, fill },
    powersOfTwo(name, [rows, columns / 32], spread / spreadOfE2m1),
  ];
}

function powersOfTwo(name: string, shape: readonly number[], value: number): PlannedTensor {
  const code = Math.round(Math.log2(value)) + 127;
  const scale = name.replace(/\.weight$/, ".scale");
  return { name: scale, dtype: "F8_E8M0", shape, bytes: countElements(shape), fill: (piece) => piece.fill(code) };
}

/** The tokens of the prompt format, so that such a model can be served; the 256 bytes; fillers up to the size of the vocabulary. */
function byteTokenizerJson(vocabSize: number): unknown {
  const { begin, end, ...others } = token;
  const special = [begin, end, ...Object.values(others), dialects["v4.1"].systemToken!];
  const tokens = [...special, ...letterOfByte];
  for (let i = tokens.length; i < vocabSize; i++) tokens.push(`f${i}`);
  const isolated = (Regex: string) => ({ type: "Split", pattern: { Regex }, behavior: "Isolated", invert: false });
  const last = { type: "ByteLevel", add_prefix_space: false, trim_offsets: true, use_regex: false };
  return {
    added_tokens: special.map((content, id) => ({ id, content, special: true })),
    pre_tokenizer: { type: "Sequence", pretokenizers: [...deepseekPatterns.map(isolated), last] },
    model: { type: "BPE", vocab: Object.fromEntries(tokens.map((token, id) => [token, id])), merges: [] },
  };
}
