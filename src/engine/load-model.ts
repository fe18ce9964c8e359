/** From a reference (a folder, a .gguf file, or nothing for the embedded model) to a loaded model. */
import { fileURLToPath } from "node:url";
import type { DialectName } from "../chat/dialect.ts";
import type { Activations } from "../device/cpu/kernel-device.ts";
import type { Device } from "../device/device.ts";
import { yieldToEventLoop } from "../device/event-loop.ts";
import { FormatError, ModelError, RequestError, UsageError } from "../errors.ts";
import { openGguf } from "../format/gguf.ts";
import type { ImageLimits } from "../media/image-reader.ts";
import type { ModelConfig } from "../model/config.ts";
import { isVisionTensor, officialName } from "../model/weight-names.ts";
import { countElements } from "../tensor/shape.ts";
import type { Tokenizer } from "../tokenizer/tokenizer.ts";
import { type Checkpoint, type ModelFiles, openCheckpoint } from "./checkpoint.ts";
import { folderFiles, isGgufPath, openGgufFile } from "./checkpoint-folder.ts";
import { chooseDevice } from "./choose-device.ts";
import type { DrafterKind, DraftingName } from "./drafting/drafting.ts";
import type { EngramMemory, EngramOptions } from "./engram/engram-memory.ts";
import { openEngram } from "./engram/open-engram.ts";
import { FileSource } from "./file-source.ts";
import { tokenizerOfFolder } from "./folder-tokenizer.ts";
import { type GgufCheckpoint, metadataValue } from "./gguf-checkpoint.ts";
import { tokenizerOfGguf } from "./gguf-tokenizer.ts";
import { giveParameter } from "./give-parameter.ts";
import { type GenerationDefaults, Model } from "./model.ts";
import { Pacer } from "./pacer.ts";
import { ProcessDevice } from "./process-device.ts";
import { readJson } from "./read-json.ts";
import { resolveSamplingOptions, type SamplingOptions } from "./sampling/sampling-options.ts";
import { ModelImages } from "./vision/model-images.ts";
import { openVisionCheckpoint as openVision, type VisionCheckpoint } from "./vision/vision-checkpoint.ts";
import { withoutUndefined } from "./without-undefined.ts";

export interface LoadOptions {
  /** "auto" (default), "cpu", "wasm" or "reference". */
  readonly device?: string;
  /** Threads that compute. Default: one for each physical core that this process may use. */
  readonly threads?: number;
  /**
   * How activations meet weights in block formats (Q8_0, Q4_0, MXFP4 ...): quantised to int8 (default, fast), or in float32 (as
   * if the weights were dequantised first).
   */
  readonly activations?: Activations;
  /** The instruction set of the kernels ("avx2"); default: the best that the machine has. */
  readonly instructions?: string;
  /**
   * Where steps are computed: on worker threads of this process (default), or in a child process, so that native code that crashes
   * becomes a DeviceError (code "device-process") and this process goes on.
   */
  readonly isolation?: "threads" | "process";
  /** Tokens of context to make room for. Default: the model's max_position_embeddings. */
  readonly contextLength?: number;
  /**
   * Bytes of memory for the n-gram memory of a V4.1 model: rows of its tables are read from the files when they are needed, and
   * kept as far as this goes. Default: 512 MiB.
   */
  readonly engramCacheBytes?: number;
  /**
   * What guesses tokens ahead (docs/drafting.md); answers are the same with any. "auto": the model's own module where the files hold
   * one, else n-grams. Default: "off", and the weights of a module stay on disk.
   */
  readonly drafting?: DraftingName;
  /** Load what reads images, where the folder has it. Default true; the published vision part takes 1 GB. */
  readonly images?: boolean;
  /** Bounds of an image in a prompt: bytes, pixels, time and memory of decoding it. */
  readonly imageLimits?: Partial<ImageLimits>;
  /** Hears how many bytes of weights are loaded. */
  readonly onProgress?: (loadedBytes: number, totalBytes: number) => void;
  /** Ends the loading at the next read of a file, by throwing the signal's reason. */
  readonly signal?: AbortSignal;
}

/** The folder of the model that comes with Freehold. */
export const embeddedModel = fileURLToPath(new URL("../../assets/seed-v4", import.meta.url));

/**
 * Loads a model from a Hugging Face folder (config.json, tokenizer.json, *.safetensors) or a .gguf file; without a reference the
 * embedded one. Throws a ModelError or FormatError that says what is wrong with which file.
 */
export async function loadModel(reference: string = embeddedModel, options: LoadOptions = {}): Promise<Model> {
  const contextLength = checkContext(options.contextLength);
  const device = await deviceOf(options);
  await yieldToEventLoop();
  try {
    return await loadOnto(device, reference, options, contextLength);
  } catch (error) {
    device[Symbol.dispose]();
    throw error;
  }
}

async function loadOnto(
  device: Device,
  reference: string,
  options: LoadOptions,
  contextLength: number | undefined,
): Promise<Model> {
  const { checkpoint, tokenizer, files, ...rest } = await openModelFiles(reference, options.signal);
  let engram: EngramMemory | undefined;
  let vision: VisionCheckpoint | undefined;
  try {
    if (tokenizer !== undefined) checkVocabulary(tokenizer, checkpoint);
    if (files !== undefined) engram = await openEngram(checkpoint, files, tokenizer, engramOptions(options));
    if (files !== undefined && options.images !== false && readsImages(checkpoint)) vision = await openVision(files);
    const { config } = checkpoint;
    const drafter = drafterOf(config, options.drafting ?? "off", reference);
    await loadWeights(checkpoint, { vision, drafter }, device, options);
    await yieldToEventLoop();
    const context = contextLength ?? config.maxPositionEmbeddings;
    return new Model({
      name: reference,
      config,
      device,
      tokenizer,
      engram,
      drafter,
      images: vision && new ModelImages(vision.config, device, options.imageLimits),
      dialect: config.architecture === "deepseek-v4.1" ? "v4.1" : "v4",
      contextLength: context,
      ...rest,
    });
  } catch (error) {
    engram?.[Symbol.dispose]();
    throw error;
  } finally {
    await checkpoint.close();
    await vision?.close();
  }
}

/** The router knows tokens of images, and the files hold a vision part. */
export function readsImages({ config, tensors }: Checkpoint): boolean {
  if (config.architecture !== "deepseek-v4.1" || config.imageTokenId === undefined) return false;
  return tensors.some(({ name }) => isVisionTensor(officialName(name)));
}

/** What drafts for a model. Throws a ModelError where a module is asked for that the model does not have. */
function drafterOf(config: ModelConfig, asked: DraftingName, where: string): DrafterKind {
  if (asked === "off" || asked === "ngram") return asked;
  const hasDspark = config.architecture === "deepseek-v4.1" && config.drafter !== undefined;
  const hasMtp = config.architecture === "deepseek-v4" && config.numMtpModules > 0;
  const own = hasDspark ? "dspark" : hasMtp ? "mtp" : undefined;
  if (asked === "auto" || asked === own) return own ?? "ngram";
  const has = own === undefined ? "no drafter of its own" : `another drafter: ${own}`;
  throw new ModelError(`The model has ${has}`, {
    code: "no-drafter",
    where,
    hint: `Say --draft ${own ?? "ngram"} or --draft auto in place of ${asked}`,
  });
}

function engramOptions({ engramCacheBytes: cacheBytes }: LoadOptions): EngramOptions {
  if (cacheBytes === undefined || (Number.isFinite(cacheBytes) && cacheBytes >= 0))
    return withoutUndefined({ cacheBytes });
  throw new UsageError(`${cacheBytes} bytes for the n-gram memory are not possible`, {
    where: "--engram-memory",
    hint: "Give a number of at least 0",
  });
}

function deviceOf({ device, threads, activations, instructions, isolation }: LoadOptions): Promise<Device> {
  const options = withoutUndefined({ device, threads, activations, instructions });
  return isolation === "process" ? ProcessDevice.start(options) : chooseDevice(options);
}

/** What the files of a model hold, in whichever format. */
interface ModelInFiles {
  readonly checkpoint: Checkpoint;
  /** The folder; a GGUF file has none. */
  readonly files?: ModelFiles;
  readonly tokenizer: Tokenizer | undefined;
  readonly tokenizerFault?: string;
  readonly defaults: GenerationDefaults;
  readonly addsBeginOfSequence: boolean;
  readonly notes: readonly string[];
}

/** A model whose tokenizer is of another kind still works on token ids; the note says why it takes no text. */
async function usableTokenizer(
  { metadata }: GgufCheckpoint,
  name: string,
): Promise<{ tokenizer: Tokenizer | undefined; tokenizerFault?: string; notes: readonly string[] }> {
  try {
    return { tokenizer: await tokenizerOfGguf({ metadata, name }), notes: [] };
  } catch (error) {
    if (!(error instanceof ModelError || error instanceof FormatError)) throw error;
    const notes = [`${error.message}; the model works on token ids`];
    return { tokenizer: undefined, tokenizerFault: error.message, notes };
  }
}

async function openModelFiles(reference: string, signal: AbortSignal | undefined): Promise<ModelInFiles> {
  if (isGgufPath(reference)) {
    const checkpoint = await openGgufFile(reference, signal);
    const addsBeginOfSequence = metadataValue(checkpoint, "tokenizer.ggml.add_bos_token") === true;
    return {
      checkpoint,
      ...(await usableTokenizer(checkpoint, reference)),
      defaults: { eosTokenIds: [] },
      addsBeginOfSequence,
    };
  }
  const files = await folderFiles(reference, signal);
  const checkpoint = await openCheckpoint(files);
  try {
    const tokenizer = (await files.has("tokenizer.json")) ? await tokenizerOfFolder(files) : undefined;
    const { defaults, notes } = await readGenerationConfig(files);
    const rest = { addsBeginOfSequence: await addsBeginOfSequence(files), notes: [...checkpoint.notes, ...notes] };
    return { checkpoint, files, tokenizer, defaults, ...rest };
  } catch (error) {
    await checkpoint.close();
    throw error;
  }
}

async function loadWeights(
  checkpoint: Checkpoint,
  { vision, drafter }: { vision: VisionCheckpoint | undefined; drafter: DrafterKind },
  device: Device,
  { onProgress, signal }: LoadOptions,
): Promise<void> {
  // What nobody drafts with stays on disk: of several MTP modules all but the first.
  const used = { dspark: "mtp.", mtp: "mtp.0.", ngram: undefined, off: undefined }[drafter];
  const isUsed = (name: string) => !name.startsWith("mtp.") || (used !== undefined && name.startsWith(used));
  const parameters = checkpoint.parameters.filter(({ name }) => isUsed(name));
  const all = [
    ...parameters.map((parameter) => ({ from: checkpoint, parameter })),
    ...(vision?.parameters ?? []).map((parameter) => ({ from: vision!, parameter })),
  ];
  const bytes = (shape: readonly number[]) => 4 * countElements(shape);
  const total = all.reduce((sum, { parameter }) => sum + bytes(parameter.shape), 0);
  let loaded = 0;
  const pacer = new Pacer();
  for (const { from, parameter } of all) {
    signal?.throwIfAborted();
    await pacer.pause();
    await giveParameter(from, parameter, device);
    loaded += bytes(parameter.shape);
    onProgress?.(loaded, total);
  }
}

/** A tokenizer and its prompt format, from a folder that may hold no weights. */
export async function openTokenizer(
  reference: string = embeddedModel,
): Promise<{ tokenizer: Tokenizer; dialect: DialectName }> {
  const tokenizer = isGgufPath(reference)
    ? await ggufTokenizer(reference)
    : await tokenizerOfFolder(await folderFiles(reference));
  // The system turn has a token of its own in V4.1 only.
  return { tokenizer, dialect: tokenizer.tokenId("<｜System｜>") === undefined ? "v4" : "v4.1" };
}

async function ggufTokenizer(path: string): Promise<Tokenizer> {
  const source = await FileSource.open(path);
  try {
    const pacer = new Pacer();
    const { metadata } = await openGguf(source, () => pacer.pause());
    const tokenizer = await tokenizerOfGguf({ metadata, name: path });
    if (tokenizer !== undefined) return tokenizer;
    throw new ModelError("The file holds no tokenizer", { code: "no-tokenizer", where: path });
  } finally {
    await source.close();
  }
}

/** Every token of the tokenizer must have a row in the embedding. */
function checkVocabulary(tokenizer: Tokenizer, { config }: Checkpoint): void {
  if (tokenizer.vocabSize <= config.vocabSize) return;
  throw new ModelError(`The tokenizer has ${tokenizer.vocabSize} tokens, the model only ${config.vocabSize}`, {
    code: "bad-weights",
    where: "tokenizer.json",
    hint: "Tokenizer and weights are of different models",
  });
}

async function addsBeginOfSequence(files: ModelFiles): Promise<boolean> {
  const file = "tokenizer_config.json";
  if (!(await files.has(file))) return false;
  return ((await readJson(files, file, "")) as { add_bos_token?: unknown } | null)?.add_bos_token === true;
}

/** What cannot be a default is left out with a note: every request that says nothing would fail of it. */
async function readGenerationConfig(
  files: ModelFiles,
): Promise<{ defaults: GenerationDefaults; notes: readonly string[] }> {
  const file = "generation_config.json";
  if (!(await files.has(file))) return { defaults: { eosTokenIds: [] }, notes: [] };
  const json = (await readJson(files, file, "")) as Record<string, unknown> | null;
  const notes: string[] = [];
  const number = (key: string, isUsable: (value: number) => boolean): number | undefined => {
    const value = json?.[key] ?? undefined;
    if (value === undefined || (typeof value === "number" && isUsable(value))) return value;
    notes.push(`${file}: ${key} is ${JSON.stringify(value)}, which is left out`);
    return undefined;
  };
  const topK = number("top_k", (k) => k === -1 || isSamplingOption({ topK: k }));
  const values = withoutUndefined({
    temperature:
      json?.do_sample === false ? 0 : number("temperature", (temperature) => isSamplingOption({ temperature })),
    topP: number("top_p", (topP) => isSamplingOption({ topP })),
    topK: topK === -1 ? 0 : topK, // both are all
    maxTokens: number("max_new_tokens", (tokens) => Number.isSafeInteger(tokens) && tokens > 0),
  });
  const eosTokenIds = [json?.eos_token_id].flat().filter((id): id is number => Number.isInteger(id));
  return { defaults: { ...values, eosTokenIds }, notes };
}

function isSamplingOption(option: SamplingOptions): boolean {
  try {
    resolveSamplingOptions(option);
    return true;
  } catch (error) {
    if (error instanceof RequestError) return false;
    throw error;
  }
}

/** Positions are numbered by 31 bits. */
const mostContext = 2 ** 31 - 1;

function checkContext(contextLength: number | undefined): number | undefined {
  const isPossible = (tokens: number) => Number.isInteger(tokens) && tokens > 0 && tokens <= mostContext;
  if (contextLength === undefined || isPossible(contextLength)) return contextLength;
  throw new UsageError(`A context of ${contextLength} tokens is not possible`, {
    where: "--context",
    hint: `Give a whole number from 1 to ${mostContext}`,
  });
}
