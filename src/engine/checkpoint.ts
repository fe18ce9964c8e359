/**
 * A checkpoint: the config and the weights of a model in a set of files. Headers are read and checked when it is opened:
 * every parameter of the model must be there once, with its shape and a dtype it may have, and nothing else; all faults are
 * listed in one error. Weights are read and dequantised one by one, when they are asked for.
 */

import { fromJson } from "../chat/read-json.ts";
import type { StoredMatrix } from "../device/device.ts";
import { ModelError } from "../errors.ts";
import type { ByteSource } from "../format/byte-source.ts";
import { openSafetensors, type SafetensorsFile, type TensorInfo } from "../format/safetensors.ts";
import { type Json, JsonObject } from "../json/parse-json.ts";
import type { ModelConfig } from "../model/config.ts";
import { drafterParameters, engramTables, modelParametersInSteps, type Parameter } from "../model/parameters.ts";
import { parseConfig } from "../model/parse-config.ts";
import { isVisionTensor, officialName, stackedGateUp } from "../model/weight-names.ts";
import { Pacer } from "./pacer.ts";
import { downloadHint, readJson, readLongJson } from "./read-json.ts";
import {
  checkScales,
  isMatrixDtype,
  loadFloats,
  loadIntegers,
  type StoredWeight,
  storedMatrix,
  storedShapes,
} from "./stored-weight.ts";

/** The files of a model, wherever they are. */
export interface ModelFiles {
  /** For messages: the folder. */
  readonly name: string;
  has(file: string): Promise<boolean>;
  list(): Promise<readonly string[]>;
  open(file: string): Promise<ByteSource>;
}

/** A tensor as a file has it; `begin` and `end` count from the file's first byte. */
export interface CheckpointTensor extends TensorInfo {
  readonly file: string;
}

/** The config and the weights of a model, whatever files they come from. */
export interface Checkpoint {
  readonly config: ModelConfig;
  /** Everything that is in the files. */
  readonly tensors: readonly CheckpointTensor[];
  /** What a user should know: parts of the files that are not used, and why. */
  readonly notes: readonly string[];
  /** What can be loaded: all that the model needs. */
  readonly parameters: readonly Parameter[];
  /** Tables of which rows are read while the model runs; no device holds them. */
  readonly tables: readonly Parameter[];
  has(name: string): boolean;
  /** The values of a parameter in float32 (int32 for tables of integers). Reads nothing but its bytes. */
  load(name: string): Promise<LoadedParameter>;
  /** Where a matrix lies in the files, in its format; undefined for what has another form (stacked experts, integers). */
  stored(name: string): StoredMatrix | undefined;
  /** Reads the E8M0 scales that lie apart from a matrix; throws a FormatError for one that is no number. */
  checkScales(name: string): Promise<void>;
  close(): Promise<void>;
}

export interface LoadedParameter {
  readonly shape: readonly number[];
  readonly data: Float32Array | Int32Array;
}

/** Where the values of a parameter are: a tensor, a part of one, or one tensor an expert. */
interface Binding {
  readonly parameter: Parameter;
  readonly parts: readonly StoredWeight[];
}

class SafetensorsCheckpoint implements Checkpoint {
  readonly config: ModelConfig;
  readonly notes: readonly string[];
  readonly #bindings: ReadonlyMap<string, Binding>;
  readonly #files: readonly SafetensorsFile[];

  constructor(config: ModelConfig, files: readonly SafetensorsFile[], bindings: Binding[], notes: readonly string[]) {
    this.config = config;
    this.notes = notes;
    this.#files = files;
    this.#bindings = new Map(bindings.map((binding) => [binding.parameter.name, binding]));
  }

  get tensors(): readonly CheckpointTensor[] {
    return this.#files.flatMap((file) =>
      [...file.tensors.values()].map((info) => ({ ...info, file: file.source.name })),
    );
  }

  get parameters(): readonly Parameter[] {
    const tables = new Set(this.tables.map(({ name }) => name));
    return [...this.#bindings.values()].map(({ parameter }) => parameter).filter(({ name }) => !tables.has(name));
  }

  get tables(): readonly Parameter[] {
    return engramTables(this.config);
  }

  has(name: string): boolean {
    return this.#bindings.has(name);
  }

  async load(name: string): Promise<LoadedParameter> {
    const { parameter, parts } = requireParameter(this.#bindings.get(name), name);
    if (parameter.kind !== "integers") {
      return { shape: parameter.shape, data: await loadFloats(parameter, parts, this.#blockOf(parameter)) };
    }
    const data = await loadIntegers(parts[0]!);
    requireExperts(data, parameter, this.config, parts[0]!.file.source.name);
    return { shape: parameter.shape, data };
  }

  stored(name: string): StoredMatrix | undefined {
    const { parameter, parts } = requireParameter(this.#bindings.get(name), name);
    return storedMatrix(parameter, parts, this.#blockOf(parameter));
  }

  #blockOf({ scaleBlock }: Parameter): readonly [number, number] {
    return scaleBlock ?? this.config.fp8BlockSize;
  }

  checkScales(name: string): Promise<void> {
    return checkScales(requireParameter(this.#bindings.get(name), name).parts);
  }

  async close(): Promise<void> {
    await Promise.all(this.#files.map((file) => file.source.close()));
  }
}

export function requireParameter<T>(binding: T | undefined, name: string): T {
  if (binding !== undefined) return binding;
  throw new ModelError(`The checkpoint has no parameter "${name}"`, { code: "no-parameter" });
}

/** Opens config.json and the headers of all weights files. */
export async function openCheckpoint(files: ModelFiles): Promise<Checkpoint> {
  const config = parseConfig(
    await readJson(files, "config.json", "It is no model folder"),
    `${files.name}/config.json`,
  );
  const sources: ByteSource[] = [];
  const pacer = new Pacer();
  try {
    const opened: SafetensorsFile[] = [];
    for (const { file, tensors } of await weightFiles(files, pacer)) {
      const source = await files.open(file);
      sources.push(source);
      const safetensors = await openSafetensors(source, () => pacer.pause());
      requireIndexed(safetensors, tensors);
      opened.push(safetensors);
    }
    return await bind(config, opened, files.name, pacer);
  } catch (error) {
    await Promise.all(sources.map((source) => source.close()));
    throw error;
  }
}

/** The files that hold weights, with the tensors that the index promises in each (none without an index). */
export async function weightFiles(
  files: ModelFiles,
  pacer: Pacer,
): Promise<{ file: string; tensors: readonly string[] }[]> {
  const index = "model.safetensors.index.json";
  if (await files.has(index)) return shardsOf(files, await readLongJson(files, index, "", pacer), pacer);
  const names = (await files.list()).filter((name) => name.endsWith(".safetensors"));
  const single = names.includes("model.safetensors") ? ["model.safetensors"] : names;
  if (single.length === 0) {
    throw new ModelError("The folder holds no weights", {
      code: "no-weights",
      where: files.name,
      hint: "It needs model.safetensors, or shards with model.safetensors.index.json",
    });
  }
  return single.map((file) => ({ file, tensors: [] }));
}

async function shardsOf(
  files: ModelFiles,
  index: Json,
  pacer: Pacer,
): Promise<{ file: string; tensors: readonly string[] }[]> {
  const where = `${files.name}/model.safetensors.index.json`;
  const weightMap = index instanceof JsonObject ? index.get("weight_map") : undefined;
  if (!(weightMap instanceof JsonObject)) {
    throw new ModelError("The index has no weight_map", { code: "bad-index", where, hint: downloadHint });
  }
  const shards = new Map<string, Set<string>>();
  for (const [i, [tensor, file]] of weightMap.entries.entries()) {
    if (i % tensorsAtOnce === 0) await pacer.pause();
    if (typeof file !== "string" || file === "" || /[/\\]|\.\./.test(file)) {
      throw new ModelError(`The index names ${JSON.stringify(fromJson(file))?.slice(0, 80)}, which is no file name`, {
        code: "bad-index",
        where,
        hint: "Shards lie beside the index, in the same folder",
      });
    }
    if (!shards.has(file)) shards.set(file, new Set());
    shards.get(file)!.add(tensor);
  }
  for (const file of shards.keys()) {
    if (await files.has(file)) continue;
    throw new ModelError(`The shard ${file} is missing`, {
      code: "no-shard",
      where: files.name,
      hint: "Download the model again",
    });
  }
  return [...shards].map(([file, tensors]) => ({ file, tensors: [...tensors] }));
}

function requireIndexed(file: SafetensorsFile, promised: readonly string[]): void {
  const absent = promised.filter((name) => !file.tensors.has(name));
  if (absent.length === 0) return;
  throw new ModelError(`The index promises ${listed(absent)}, which the shard does not hold`, {
    code: "bad-index",
    where: file.source.name,
    hint: "Index and shards are of different versions; download the model again",
  });
}

/** Tensors and parameters that are looked at at once: less than a millisecond. */
const tensorsAtOnce = 512;

/** Finds for every parameter its tensors, and for every tensor its parameter. */
async function bind(
  declared: ModelConfig,
  files: readonly SafetensorsFile[],
  name: string,
  pacer: Pacer,
): Promise<Checkpoint> {
  const problems = noProblems();
  const found = new Map<string, StoredWeight>();
  for (const file of files) {
    for (const info of file.tensors.values()) {
      const official = officialName(info.name);
      if (found.has(official)) problems.twice.push(info.name);
      else found.set(official, { file, info, scale: undefined, elements: undefined });
      if (found.size % tensorsAtOnce === 0) await pacer.pause();
    }
  }
  const notes: string[] = [];
  const config = withoutImages(withoutUnusableMtp(declared, found, notes), found, notes);
  const used = new Set<string>();
  const take = (official: string): StoredWeight | undefined => {
    const weight = found.get(official);
    if (weight === undefined) return undefined;
    used.add(official);
    const scaleName = official.replace(/\.weight$/, ".scale");
    const scale = scaleName === official ? undefined : found.get(scaleName);
    if (scale !== undefined) used.add(scaleName);
    return { ...weight, scale: scale && { file: scale.file, info: scale.info } };
  };
  await pacer.pause();
  const parameters = [
    ...(await pacer.finish(modelParametersInSteps(config))),
    ...drafterParameters(config),
    ...engramTables(config),
  ];
  const bindings: Binding[] = [];
  for (const parameter of parameters) {
    await pacer.pause();
    const parts = partsOf(parameter, take, problems.missing);
    for (const part of parts) {
      const fault = faultOf(part, parameter, config);
      if (fault !== undefined) problems.wrong.push(fault);
    }
    bindings.push({ parameter, parts });
  }
  await pacer.pause();
  for (const [official, { info }] of found) {
    if (!used.has(official) && !isIgnored(official, config)) problems.unexpected.push(info.name);
  }
  throwProblems(problems, name);
  return new SafetensorsCheckpoint(config, files, bindings, notes);
}

/** transformers drops what drafts when it saves a model; other checkpoints have another drafter under its name. */
function withoutUnusableMtp(config: ModelConfig, found: ReadonlyMap<string, unknown>, notes: string[]): ModelConfig {
  const without = (note: string): ModelConfig => {
    notes.push(note);
    const isV41 = config.architecture === "deepseek-v4.1";
    return isV41 ? { ...config, numMtpModules: 0, drafter: undefined } : { ...config, numMtpModules: 0 };
  };
  const names = [...found.keys()].filter((name) => name.startsWith("mtp."));
  const isDspark = names.includes("mtp.0.main_proj.weight");
  if (isDspark && config.architecture === "deepseek-v4")
    return without("The drafter of this checkpoint (DSpark) is not supported with V4 and is left out");
  const what = config.architecture === "deepseek-v4" ? "an MTP module" : "a drafter";
  if (names.length === 0) {
    if (config.numMtpModules === 0) return config;
    return without(`The config names ${what} that the files do not hold: the model loads without`);
  }
  if (config.numMtpModules === 0) notes.push(`The files hold ${what} that the config does not name: it is left out`);
  return config;
}

/** A file without a bias for image tokens is one of the text model alone. */
function withoutImages(config: ModelConfig, found: ReadonlyMap<string, unknown>, notes: string[]): ModelConfig {
  if (config.architecture !== "deepseek-v4.1" || config.imageTokenId === undefined) return config;
  if (found.has("layers.0.ffn.gate.bias_vl")) return config;
  if ([...found.keys()].some(isVisionTensor))
    notes.push("The vision part is left out: the router has no bias for tokens of images (bias_vl)");
  return { ...config, imageTokenId: undefined };
}

function isIgnored(official: string, config: ModelConfig): boolean {
  if (official.endsWith("rotary_emb.inv_freq")) return true;
  if (official.startsWith("mtp."))
    // A draft holds no image: the bias for image tokens is there and never read.
    return config.numMtpModules === 0 || (config.architecture === "deepseek-v4.1" && /gate\.bias_vl$/.test(official));
  return config.architecture === "deepseek-v4.1" && isVisionTensor(official);
}

/** One tensor, or for routed experts one an expert, or a slice of the stacked gate and up rows. */
function partsOf(
  { name, shape }: Parameter,
  take: (official: string) => StoredWeight | undefined,
  missing: string[],
): StoredWeight[] {
  const whole = take(name);
  if (whole !== undefined) return [whole];
  const expert = /^(.*\.ffn\.experts)\.(w[123])\.weight$/.exec(name);
  if (expert === null) {
    missing.push(name);
    return [];
  }
  const [, prefix, role] = expert;
  const [count, rows, columns] = shape as [number, number, number];
  const stacked = role === "w2" ? undefined : take(prefix!.replace(/ffn\.experts$/, stackedGateUp));
  if (stacked !== undefined) {
    // Each expert has its gate rows first, then its up rows.
    const first = role === "w1" ? 0 : rows * columns;
    return Array.from({ length: count }, (_, e) => ({
      ...stacked,
      elements: { start: e * 2 * rows * columns + first, count: rows * columns, shape: [count, 2 * rows, columns] },
    }));
  }
  const parts: StoredWeight[] = [];
  // Not all of the 65,536 that a config may name in each of 1024 layers, where hardly any is there.
  for (let e = 0; e < count && e < 2 * parts.length + mostListed; e++) {
    const one = take(`${prefix}.${e}.${role}.weight`);
    if (one === undefined) missing.push(`${prefix}.${e}.${role}.weight`);
    else parts.push(one);
  }
  return parts;
}

/** Names in a message. */
const mostListed = 20;

/** What is wrong with a stored tensor for this parameter, if anything. */
function faultOf(part: StoredWeight, parameter: Parameter, config: ModelConfig): string | undefined {
  const { info, scale, elements } = part;
  const isOneExpert = parameter.shape.length === 3 && info.shape.length === 2;
  const shape = elements?.shape ?? (isOneExpert ? parameter.shape.slice(1) : parameter.shape);
  if (parameter.kind === "integers" && !["I32", "I64"].includes(info.dtype)) {
    return `${info.name} is ${info.dtype}, not I32 or I64`;
  }
  if (parameter.kind === "vector" && !["F32", "F16", "BF16"].includes(info.dtype)) {
    return `${info.name} is ${info.dtype}, not F32, F16 or BF16`;
  }
  if (parameter.kind === "matrix" && !isMatrixDtype(info.dtype)) {
    return `${info.name} is ${info.dtype}, which no weight of a model can be`;
  }
  const expected = storedShapes(info.dtype, shape, parameter.scaleBlock ?? config.fp8BlockSize);
  if (elements !== undefined && !["F32", "F16", "BF16"].includes(info.dtype)) {
    return `${info.name} is ${info.dtype}; stacked experts are read in F32, F16 and BF16 only`;
  }
  if (String(info.shape) !== String(expected.weight)) {
    return `${info.name} has the shape [${info.shape}], expected [${expected.weight}]`;
  }
  if (expected.scale === undefined)
    return scale === undefined ? undefined : `${scale.info.name} scales a weight that needs none`;
  if (scale === undefined) return `${info.name} is ${info.dtype} and has no scale`;
  if (String(scale.info.shape) !== String(expected.scale)) {
    return `${scale.info.name} has the shape [${scale.info.shape}], expected [${expected.scale}]`;
  }
  if (!["F8_E8M0", "U8", "F32"].includes(scale.info.dtype))
    return `${scale.info.name} is ${scale.info.dtype}, which no scale can be`;
  return undefined;
}

export type WeightProblems = Readonly<Record<"missing" | "unexpected" | "twice" | "wrong", string[]>>;

export const noProblems = (): WeightProblems => ({ missing: [], unexpected: [], twice: [], wrong: [] });

const configJson = { file: "config", hint: "Check that config.json and the weights are of the same model" };

/** All that is wrong with a set of weights, in one error. */
export function throwProblems(problems: WeightProblems, where: string, { file, hint } = configJson): void {
  const titles: Readonly<Record<string, string>> = {
    missing: "missing",
    unexpected: "unexpected",
    twice: "there twice",
    wrong: "wrong",
  };
  const parts = Object.entries(problems)
    .filter(([, list]) => list.length > 0)
    .map(([kind, list]) => `${list.length} ${titles[kind]}: ${listed([...new Set(list)])}`);
  if (parts.length === 0) return;
  throw new ModelError(`The weights do not fit the ${file}. ${parts.join("; ")}`, {
    code: "bad-weights",
    where,
    hint,
  });
}

function listed(names: readonly string[], most = mostListed): string {
  const shown = names.slice(0, most).map((name) => (name.length > 100 ? `${name.slice(0, 100)}...` : name));
  return shown.join(", ") + (names.length > most ? ` and ${names.length - most} more` : "");
}

/** A table of experts must name experts that exist, each once a token. */
export function requireExperts(
  table: Int32Array,
  { name, shape }: Parameter,
  { numExperts }: ModelConfig,
  where: string,
): void {
  const k = shape[1]!;
  for (let i = 0; i < table.length; i++) {
    const row = Math.floor(i / k) * k;
    const wrong = table[i]! < 0 || table[i]! >= numExperts || table.indexOf(table[i]!, row) < i;
    if (!wrong) continue;
    throw new ModelError(
      `${name} names the expert ${table[i]} for token ${row / k}, which does not exist or stands twice`,
      { code: "bad-weights", where, hint: "The table is damaged; download the model again" },
    );
  }
}
