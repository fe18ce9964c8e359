/**
 * The vision part of a model folder: its config and the tensors `vision.*`, `aligner.*` and `image_*`. It is opened apart from
 * the text model, so that who sends no images neither reads nor holds it. Only files that hold some of it are opened.
 */
import { openSafetensors } from "../../format/safetensors.ts";
import type { Parameter } from "../../model/parameters.ts";
import { parseVisionConfig, type VisionConfig } from "../../model/vision/config.ts";
import { visionParameters } from "../../model/vision/image-encoder.ts";
import { isVisionTensor, officialName } from "../../model/weight-names.ts";
import {
  type Checkpoint,
  type LoadedParameter,
  type ModelFiles,
  noProblems,
  requireParameter,
  throwProblems,
  weightFiles,
} from "../checkpoint.ts";
import { Pacer } from "../pacer.ts";
import { readJson } from "../read-json.ts";
import { loadFloats, type StoredWeight, storedMatrix } from "../stored-weight.ts";

export interface VisionCheckpoint extends Pick<Checkpoint, "parameters" | "stored" | "checkScales" | "load" | "close"> {
  readonly config: VisionConfig;
}

/** Tensors of the vision part have no scales: the published ones are BF16. */
const dtypes = ["F32", "F16", "BF16"];
const noTiles = [1, 1] as const;

/** Undefined where config.json has no vision part. Throws a ModelError that lists what is missing or wrong. */
export async function openVisionCheckpoint(files: ModelFiles): Promise<VisionCheckpoint | undefined> {
  const json = await readJson(files, "config.json", "It is no model folder");
  const config = parseVisionConfig(json, `${files.name}/config.json`);
  if (config === undefined) return undefined;
  const found = await visionTensors(files);
  const problems = noProblems();
  for (const name of found.twice) problems.twice.push(name);
  const parameters = visionParameters(config);
  for (const parameter of parameters) {
    const weight = found.weights.get(parameter.name);
    if (weight === undefined) problems.missing.push(parameter.name);
    else problems.wrong.push(...faultsOf(weight, parameter));
  }
  const expected = new Set(parameters.map(({ name }) => name));
  for (const name of found.weights.keys()) if (!expected.has(name)) problems.unexpected.push(name);
  try {
    throwProblems(problems, files.name);
  } catch (error) {
    await found.close();
    throw error;
  }
  return bound(config, parameters, found);
}

interface FoundTensors {
  readonly weights: ReadonlyMap<string, StoredWeight>;
  readonly twice: readonly string[];
  close(): Promise<void>;
}

async function visionTensors(files: ModelFiles): Promise<FoundTensors> {
  const weights = new Map<string, StoredWeight>();
  const twice: string[] = [];
  const opened: { close(): Promise<void> }[] = [];
  const close = async () => void (await Promise.all(opened.map((source) => source.close())));
  const pacer = new Pacer();
  try {
    for (const { file, tensors } of await weightFiles(files, pacer)) {
      // Without an index nobody knows before the file is open.
      if (tensors.length > 0 && !tensors.some((name) => isVisionTensor(officialName(name)))) continue;
      const source = await files.open(file);
      opened.push(source);
      const safetensors = await openSafetensors(source, () => pacer.pause());
      for (const info of safetensors.tensors.values()) {
        const name = officialName(info.name);
        if (!isVisionTensor(name)) continue;
        if (weights.has(name)) twice.push(name);
        weights.set(name, { file: safetensors, info, scale: undefined, elements: undefined });
      }
    }
    return { weights, twice, close };
  } catch (error) {
    await close();
    throw error;
  }
}

function faultsOf({ info }: StoredWeight, { shape }: Parameter): string[] {
  if (!dtypes.includes(info.dtype)) return [`${info.name} is ${info.dtype}, not ${dtypes.join(", ")}`];
  if (String(info.shape) === String(shape)) return [];
  return [`${info.name} has the shape [${info.shape}], expected [${shape}]`];
}

function bound(config: VisionConfig, parameters: readonly Parameter[], found: FoundTensors): VisionCheckpoint {
  const bindings = new Map(
    parameters.map((parameter) => [parameter.name, { parameter, parts: [found.weights.get(parameter.name)!] }]),
  );
  const binding = (name: string) => requireParameter(bindings.get(name), name);
  return {
    config,
    parameters,
    stored(name) {
      const { parameter, parts } = binding(name);
      return storedMatrix(parameter, parts, noTiles);
    },
    checkScales: () => Promise.resolve(), // there are none
    async load(name): Promise<LoadedParameter> {
      const { parameter, parts } = binding(name);
      return { shape: parameter.shape, data: await loadFloats(parameter, parts, noTiles) };
    },
    close: () => found.close(),
  };
}
