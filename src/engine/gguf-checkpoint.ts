/**
 * A model in a GGUF file, or in a split one. Metadata and tensor infos are read and checked when it is opened; weights are read
 * and dequantised one by one, when they are asked for.
 */
import type { StoredMatrix } from "../device/device.ts";
import { ModelError } from "../errors.ts";
import type { ByteSource } from "../format/byte-source.ts";
import { type GgufEntry, type GgufFile, type GgufTensor, type GgufValue, openGguf } from "../format/gguf.ts";
import type { ModelConfig } from "../model/config.ts";
import { configOfGguf, ggufBlocks, ggufName, ggufSpelling, officialNameOfGguf } from "../model/gguf-names.ts";
import { drafterParameters, modelParametersInSteps, type Parameter } from "../model/parameters.ts";
import { parseConfig } from "../model/parse-config.ts";
import { countElements } from "../tensor/shape.ts";
import {
  type Checkpoint,
  type CheckpointTensor,
  type LoadedParameter,
  noProblems,
  requireExperts,
  requireParameter,
  throwProblems,
} from "./checkpoint.ts";
import { Pacer } from "./pacer.ts";

/** Opens a sibling of a split file by its name. */
export type OpenPart = (name: string) => Promise<ByteSource>;

export class GgufCheckpoint implements Checkpoint {
  readonly config: ModelConfig;
  readonly notes: readonly string[] = [];
  readonly parameters: readonly Parameter[];
  readonly tables: readonly Parameter[] = [];
  /** The metadata of the first part: all there is. */
  readonly metadata: GgufFile["metadata"];
  readonly #files: readonly GgufFile[];
  readonly #bindings: ReadonlyMap<string, Binding>;

  constructor(config: ModelConfig, files: readonly GgufFile[], bindings: readonly Binding[]) {
    this.config = config;
    this.parameters = bindings.map(({ parameter }) => parameter);
    this.metadata = files[0]!.metadata;
    this.#files = files;
    this.#bindings = new Map(bindings.map((binding) => [binding.parameter.name, binding]));
  }

  get tensors(): readonly CheckpointTensor[] {
    return this.#files.flatMap(({ tensors, source }) =>
      [...tensors.values()].map(({ type, ...tensor }) => ({ ...tensor, dtype: type.name, file: source.name })),
    );
  }

  has(name: string): boolean {
    return this.#bindings.has(name);
  }

  async load(name: string): Promise<LoadedParameter> {
    const { parameter, file, tensor } = requireParameter(this.#bindings.get(name), name);
    const bytes = await file.source.read(tensor.begin, tensor.end - tensor.begin);
    if (parameter.kind === "integers") {
      const data = new Int32Array(bytes.buffer);
      requireExperts(data, { ...parameter, name: tensor.name }, this.config, file.source.name);
      return { shape: parameter.shape, data };
    }
    if (tensor.type.name === "F32") return { shape: parameter.shape, data: new Float32Array(bytes.buffer) };
    const data = new Float32Array(countElements(parameter.shape));
    tensor.type.decode!(bytes, data); // types without a decoder were refused when the file was opened
    return { shape: parameter.shape, data };
  }

  stored(name: string): StoredMatrix | undefined {
    const { parameter, file, tensor } = requireParameter(this.#bindings.get(name), name);
    const [rows, columns] = parameter.shape.slice(-2) as [number, number];
    const experts = parameter.shape.length === 3 ? parameter.shape[0]! : 1;
    const data = { source: file.source, offset: tensor.begin, length: tensor.end - tensor.begin };
    const apart = { scaleIsFloat: false, blockRows: 1, blockColumns: 1 };
    return { format: tensor.type.name, rows, columns, experts, parts: [{ data, scales: undefined }], ...apart };
  }

  /** Scales are part of the blocks here, and any is a number. */
  async checkScales(): Promise<void> {}

  async close(): Promise<void> {
    await closeParts(this.#files);
  }
}

interface Binding {
  readonly parameter: Parameter;
  readonly file: GgufFile;
  readonly tensor: GgufTensor;
}

/** The headers of a file, and with the first part of a split one of all others, whatever they hold. */
export async function openGgufParts(source: ByteSource, openPart: OpenPart): Promise<readonly GgufFile[]> {
  const sources = [source];
  const pacer = new Pacer();
  const pause = () => pacer.pause();
  try {
    const first = await openGguf(source, pause);
    const files = [first];
    for (const name of partNames(first)) {
      const part = await openPart(name).catch((error) => {
        throw error instanceof ModelError ? unopened(name, error) : error;
      });
      sources.push(part);
      files.push(await openGguf(part, pause));
    }
    checkParts(files);
    return files;
  } catch (error) {
    await Promise.all(sources.map((opened) => opened.close()));
    throw error;
  }
}

function unopened(part: string, cause: ModelError): ModelError {
  const hint = "Put all parts into one folder, under the names that they were published with";
  return new ModelError(`A part of the model is missing. ${cause.message}`, {
    code: "bad-split",
    where: part,
    hint,
    cause,
  });
}

export async function closeParts(files: readonly GgufFile[]): Promise<void> {
  await Promise.all(files.map(({ source }) => source.close()));
}

/** The files hold a model of the architecture that this version runs. */
export function isDeepseek(files: readonly GgufFile[]): boolean {
  return metadataValue(files[0]!, "general.architecture") === "deepseek4";
}

/** Finds the parameters of a model in open files, which are its own from then on. */
export async function bindGguf(files: readonly GgufFile[]): Promise<GgufCheckpoint> {
  const pacer = new Pacer();
  const [first] = files;
  const where = first!.source.name;
  if (!isDeepseek(files)) {
    const architecture = metadataValue(first!, "general.architecture");
    throw new ModelError(
      `The architecture of the model is not supported: ${JSON.stringify(architecture ?? "none is named")}`,
      {
        code: "unsupported-architecture",
        where,
        hint: "This version runs text models of DeepSeek V4 (general.architecture deepseek4)",
      },
    );
  }
  const names = files.flatMap(({ tensors }) => [...tensors.keys()]);
  const { numLayers, numModules } = ggufBlocks(names, metadataValue(first!, "deepseek4.block_count"));
  const found = new Map<string, { file: GgufFile; tensor: GgufTensor }>();
  const problems = noProblems();
  for (const file of files) {
    for (const tensor of file.tensors.values()) {
      await pacer.pause();
      const official = officialNameOfGguf(tensor.name, numLayers);
      if (official === undefined) problems.unexpected.push(tensor.name);
      else found.set(official, { file, tensor });
    }
  }
  const vocabSize = found.get("embed.weight")?.tensor.shape[0];
  const json = configOfGguf((key) => metadataValue(first!, key), vocabSize);
  const blocks = numModules === 0 ? {} : { num_hidden_layers: numLayers, num_nextn_predict_layers: numModules };
  const config = parseConfig({ ...json, ...blocks }, where, ggufSpelling);
  await pacer.pause();
  const bindings: Binding[] = [];
  for (const parameter of [...(await pacer.finish(modelParametersInSteps(config))), ...drafterParameters(config)]) {
    await pacer.pause();
    const stored = found.get(parameter.name);
    if (stored === undefined) {
      problems.missing.push(ggufName(parameter.name, numLayers));
      continue;
    }
    found.delete(parameter.name);
    const fault = faultOf(stored.tensor, parameter);
    if (fault !== undefined) problems.wrong.push(fault);
    bindings.push({ parameter, ...stored });
  }
  for (const { tensor } of found.values()) problems.unexpected.push(tensor.name);
  throwProblems(problems, where, ggufSpelling);
  return new GgufCheckpoint(config, files, bindings);
}

function faultOf({ name, type, shape }: GgufTensor, parameter: Parameter): string | undefined {
  if (String(shape) !== String(parameter.shape))
    return `${name} has the shape [${shape}], expected [${parameter.shape}]`;
  if (parameter.kind === "integers") return type.name === "I32" ? undefined : `${name} is ${type.name}, not I32`;
  if (parameter.kind === "vector" && !["F32", "F16", "BF16"].includes(type.name)) {
    return `${name} is ${type.name}, not F32, F16 or BF16`;
  }
  return type.decode === undefined ? `${name} is ${type.name}, which this version cannot read` : undefined;
}

/**
 * The value of a metadata key; undefined where there is none. What a double does not hold exactly comes as the nearest one: beyond 2^53
 * nothing of a model is legal, and it is refused by its size.
 */
export function metadataValue({ metadata }: Pick<GgufFile, "metadata">, key: string): PlainValue | undefined {
  const entry = metadata.get(key);
  return entry && plain(entry.value);
}

type PlainValue = number | boolean | string | readonly PlainValue[];

function plain(value: GgufValue): PlainValue {
  if (typeof value === "bigint") return Number(value);
  return typeof value === "object" ? Array.from(value, plain) : value;
}

/** The names of the parts behind the first: NAME-00002-of-00003.gguf ... */
function partNames(first: GgufFile): string[] {
  const count = metadataValue(first, "split.count");
  if (count === undefined || count === 1) return [];
  const { name } = first.source;
  const refuse = (message: string, hint: string): never => {
    throw new ModelError(message, { code: "bad-split", where: name, hint });
  };
  if (metadataValue(first, "split.no") !== 0)
    refuse("The file is not the first part of a split model", "Give the part that ends in -00001-of-….gguf");
  const pattern = /-00001-of-(\d{5})\.gguf$/.exec(name);
  if (pattern === null || Number(pattern[1]) !== count) {
    return refuse(
      `The file is the first of ${JSON.stringify(count)} parts, which its name does not say`,
      "Give the parts the names that they were published with: NAME-00001-of-00003.gguf, NAME-00002-of-00003.gguf ...",
    );
  }
  const part = (i: number) => `${name.slice(0, pattern.index)}-${String(i + 1).padStart(5, "0")}-of-${pattern[1]}.gguf`;
  return Array.from({ length: count - 1 }, (_, i) => part(i + 1));
}

/** Keys of which every part has its own value. */
const keysOfPart: ReadonlySet<string> = new Set(["split.no", "general.alignment"]);

/** Parts must say their numbers, the same count, and hold all tensors, each once. */
function checkParts(files: readonly GgufFile[]): void {
  if (files.length === 1) return;
  const fail = (message: string, file: GgufFile): never => {
    throw new ModelError(message, { code: "bad-split", where: file.source.name, hint: "Download all parts again" });
  };
  const seen = new Set<string>();
  const same = (key: string, file: GgufFile) => isSame(file.metadata.get(key), files[0]!.metadata.get(key));
  files.forEach((file, i) => {
    if (metadataValue(file, "split.no") !== i)
      fail(`The part says it is number ${metadataValue(file, "split.no")}, not ${i}`, file);
    if (metadataValue(file, "split.count") !== files.length) fail("The parts disagree on their number", file);
    const other = [...file.metadata.keys()].find((key) => !keysOfPart.has(key) && !same(key, file));
    if (other !== undefined) fail(`The part says something else of ${JSON.stringify(other)} than the first`, file);
    for (const name of file.tensors.keys()) {
      if (seen.has(name)) fail(`The tensor ${JSON.stringify(name)} is in two parts`, file);
      seen.add(name);
    }
  });
  const total = metadataValue(files[0]!, "split.tensors.count");
  if (total !== seen.size)
    fail(`The parts hold ${seen.size} tensors, split.tensors.count is ${total ?? "missing"}`, files[0]!);
}

/** Lists are compared as they stand in the files: a vocabulary that each of a thousand parts repeats is never read. */
function isSame(a: GgufEntry | undefined, b: GgufEntry | undefined): boolean {
  if (a?.type !== b?.type) return false;
  if (typeof a?.value !== "object" || typeof b?.value !== "object") return Object.is(a?.value, b?.value);
  return Buffer.compare(a.value.bytes, b.value.bytes) === 0;
}
