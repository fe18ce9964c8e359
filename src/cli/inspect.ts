/** freehold inspect: what a model's files hold, from their headers alone. */
import { stat } from "node:fs/promises";
import type { Command } from "commander";
import type { Checkpoint } from "../engine/checkpoint.ts";
import { folderFiles, isGgufPath, openCheckpointAt, openGgufHeaders } from "../engine/checkpoint-folder.ts";
import { defaultEngramCacheBytes } from "../engine/engram/engram-memory.ts";
import { FileSource } from "../engine/file-source.ts";
import { closeParts, isDeepseek } from "../engine/gguf-checkpoint.ts";
import { embeddedModel, readsImages } from "../engine/load-model.ts";
import { countParameters, engramNeed, memoryNeed, parameterCounts, weightBytes } from "../engine/memory-need.ts";
import { openVisionCheckpoint } from "../engine/vision/vision-checkpoint.ts";
import type { GgufFile, GgufValue } from "../format/gguf.ts";
import { openSafetensors, type TensorInfo } from "../format/safetensors.ts";
import { command, type OutputOptions, terminalOf, wholeNumber } from "./model-options.ts";

interface InspectOptions extends OutputOptions {
  readonly context?: number;
  readonly tensors?: boolean;
}

export function addInspect(program: Command): void {
  const examples = [
    "freehold inspect ./DeepSeek-V4-Flash --context 65536",
    "freehold inspect model.safetensors --json",
  ];
  command(program, "inspect [ref]", "Architecture, parameters, tensors and memory need of a model", examples)
    .option("--context <tokens>", "tokens of context for the memory need", wholeNumber(1))
    .option("--tensors", "list every tensor")
    .action(inspect);
}

async function inspect(reference: string | undefined, options: InspectOptions): Promise<void> {
  const terminal = terminalOf(options);
  const path = reference ?? embeddedModel;
  const report = await reportOn(path, options.context);
  const isModel = "architecture" in report;
  if (terminal.json) await terminal.writeJson(report);
  else await terminal.write(`${format(report, options.tensors ?? !isModel)}\n`);
}

async function reportOn(path: string, context: number | undefined): Promise<Report> {
  if (isGgufPath(path)) return inspectGguf(path, context);
  const isFile = (await stat(path).catch(() => undefined))?.isFile() ?? false;
  return isFile ? inspectSafetensors(path) : inspectModel(path, context);
}

/** Of any GGUF file what it holds; of a model that this version runs also what it is. */
async function inspectGguf(path: string, context: number | undefined) {
  const files = await openGgufHeaders(path);
  try {
    const [first] = files as readonly [GgufFile];
    const metadata = Object.fromEntries(
      [...first.metadata].map(([key, { type, value }]) => [key, { type, ...shownValue(value) }]),
    );
    const header = { gguf_version: first.version, alignment: first.alignment, parts: files.length, metadata };
    if (isDeepseek(files)) return { ...(await inspectModel(path, context)), ...header };
    const tensors = files.flatMap(({ tensors, source }) =>
      [...tensors.values()].map((tensor) => ({ ...tensor, dtype: tensor.type.name, file: source.name })),
    );
    return { format: "gguf", ...header, ...tensorReport(tensors, undefined) };
  } finally {
    await closeParts(files);
  }
}

/** Lists that are longer, a vocabulary, are shown by their length and their beginning. */
const mostShown = 256;

function shownValue(value: GgufValue): { value: unknown } | { length: number; first: unknown } {
  if (typeof value !== "object" || value.length <= mostShown) return { value: jsonValue(value) };
  return { length: value.length, first: Iterator.from(value).take(8).map(jsonValue).toArray() };
}

/** What JSON numbers cannot say is text. */
function jsonValue(value: GgufValue): unknown {
  if (typeof value === "object") return Array.from(value, jsonValue);
  return typeof value === "bigint" || (typeof value === "number" && !Number.isFinite(value)) ? String(value) : value;
}

async function inspectSafetensors(path: string) {
  const source = await FileSource.open(path);
  try {
    const { tensors, metadata } = await openSafetensors(source);
    return {
      format: "safetensors",
      metadata: Object.fromEntries(metadata),
      ...tensorReport([...tensors.values()], source.name),
    };
  } finally {
    await source.close();
  }
}

async function inspectModel(path: string, context: number | undefined) {
  const checkpoint = await openCheckpointAt(path);
  try {
    const { config, parameters, notes } = checkpoint;
    const tokens = context ?? config.maxPositionEmbeddings;
    const counts = parameterCounts(parameters, config);
    const vision = !isGgufPath(path) && readsImages(checkpoint) ? await inspectVision(path) : undefined;
    const drafter = inspectDrafter(checkpoint);
    return {
      format: isGgufPath(path) ? "gguf" : "safetensors",
      architecture: config.architecture,
      layers: config.numLayers,
      hidden_size: config.hiddenSize,
      vocab_size: config.vocabSize,
      experts: { routed: config.numExperts, per_token: config.numExpertsPerToken, shared: config.numSharedExperts },
      compress_ratios: config.compressRatios,
      mtp_modules: config.numMtpModules,
      max_context: config.maxPositionEmbeddings,
      parameters: counts,
      memory: memoryNeed(config, textBytes(checkpoint) + (vision?.weights_bytes ?? 0), tokens),
      engram: engramNeed(checkpoint, defaultEngramCacheBytes),
      ...(vision === undefined ? {} : { vision }),
      ...(drafter === undefined ? {} : { drafter }),
      notes,
      ...tensorReport(checkpoint.tensors, undefined),
    };
  } finally {
    await checkpoint.close();
  }
}

const isDrafter = ({ name }: { readonly name: string }) => name.startsWith("mtp.");

/** Of what every answer needs. */
function textBytes(checkpoint: Checkpoint): number {
  const parameters = checkpoint.parameters.filter((parameter) => !isDrafter(parameter));
  return weightBytes({ parameters, stored: (name) => checkpoint.stored(name) });
}

/** The module that drafts, where there is one: it is loaded when it is to draft. */
function inspectDrafter(checkpoint: Checkpoint) {
  const isV41 = checkpoint.config.architecture === "deepseek-v4.1";
  // Of several MTP modules the first one drafts.
  const parameters = checkpoint.parameters.filter(({ name }) => name.startsWith(isV41 ? "mtp." : "mtp.0."));
  if (parameters.length === 0) return undefined;
  return {
    kind: isV41 ? "dspark" : "mtp",
    parameters: countParameters(parameters),
    weights_bytes: weightBytes({ parameters, stored: (name) => checkpoint.stored(name) }),
  };
}

/** The part of the model that reads images, where it has one. */
async function inspectVision(path: string) {
  const checkpoint = await openVisionCheckpoint(await folderFiles(path));
  if (checkpoint === undefined) return undefined;
  try {
    const { config, parameters } = checkpoint;
    return {
      layers: config.numLayers,
      hidden_size: config.hiddenSize,
      max_image_tokens: config.maxImageTokens,
      parameters: countParameters(parameters),
      weights_bytes: weightBytes(checkpoint),
    };
  } finally {
    await checkpoint.close();
  }
}

function tensorReport(tensors: readonly (TensorInfo & { readonly file?: string })[], file: string | undefined) {
  const dtypes: Record<string, { tensors: number; bytes: number }> = {};
  for (const { dtype, begin, end } of tensors) {
    dtypes[dtype] ??= { tensors: 0, bytes: 0 };
    dtypes[dtype].tensors++;
    dtypes[dtype].bytes += end - begin;
  }
  return {
    bytes: tensors.reduce((sum, { begin, end }) => sum + end - begin, 0),
    dtypes,
    tensors: tensors.map(({ name, dtype, shape, begin, end, file: own }) => ({
      name,
      dtype,
      shape,
      bytes: end - begin,
      file: own ?? file,
    })),
  };
}

type Report = ReturnType<typeof tensorReport> &
  Partial<Awaited<ReturnType<typeof inspectModel>>> & { readonly metadata?: Readonly<Record<string, unknown>> };

function format(report: Report, listTensors: boolean): string {
  const lines: string[] = [];
  if (report.architecture !== undefined) {
    const { parameters, memory, experts, engram } = report;
    lines.push(
      `architecture  ${report.architecture}, ${report.layers} layers, hidden size ${report.hidden_size}, vocabulary ${report.vocab_size}`,
      `experts       ${experts!.routed} routed (${experts!.per_token} a token), ${experts!.shared} shared`,
      `parameters    ${count(parameters!.total)} in all, ${count(parameters!.active)} active a token`,
      `memory        ${bytes(memory!.weights_bytes)} weights + ${bytes(memory!.cache_bytes)} cache at ${memory!.context} tokens`,
    );
    if (engram !== undefined)
      lines.push(
        `n-gram memory ${count(engram.parameters)} parameters in ${engram.tables} tables, ${bytes(engram.bytes)} on disk, ${bytes(engram.memory_bytes)} in memory`,
      );
  }
  if (report.vision !== undefined) {
    const { layers, parameters, weights_bytes, max_image_tokens } = report.vision;
    lines.push(
      `vision        ${layers} layers, ${count(parameters)} parameters, ${bytes(weights_bytes)} of the weights, at most ${max_image_tokens} tokens an image`,
    );
  }
  if (report.drafter !== undefined) {
    const { kind, parameters, weights_bytes } = report.drafter;
    lines.push(
      `drafter       ${kind}, ${count(parameters)} parameters, ${bytes(weights_bytes)} more where it drafts (--draft)`,
    );
  }
  const types = Object.entries(report.dtypes).map(
    ([dtype, entry]) => `${dtype} ${entry.tensors} (${bytes(entry.bytes)})`,
  );
  lines.push(`tensors       ${report.tensors.length}: ${types.join(", ")}`);
  for (const [key, value] of Object.entries(report.metadata ?? {}))
    lines.push(`metadata      ${key}  ${shortly(value)}`);
  for (const note of report.notes ?? []) lines.push(`note          ${note}`);
  if (listTensors)
    for (const { name, dtype, shape } of report.tensors) lines.push(`${dtype.padEnd(8)} ${name} [${shape.join(", ")}]`);
  return lines.join("\n");
}

/** A value of the metadata on one line. */
function shortly(value: unknown): string {
  const { value: plain = value, length, first } = value as { value?: unknown; length?: number; first?: unknown };
  const text = JSON.stringify(first ?? plain);
  const shown = text.length > 100 ? `${text.slice(0, 100)}...` : text;
  return length === undefined || first === undefined ? shown : `${length} of ${shown}`;
}

function count(parameters: number): string {
  if (parameters >= 1e9) return `${(parameters / 1e9).toFixed(2)} B`;
  return parameters >= 1e6 ? `${(parameters / 1e6).toFixed(2)} M` : String(parameters);
}

function bytes(amount: number): string {
  const units = ["B", "KiB", "MiB", "GiB", "TiB"];
  const power = Math.min(units.length - 1, Math.floor(Math.log2(Math.max(1, amount)) / 10));
  return `${(amount / 1024 ** power).toFixed(power === 0 ? 0 : 1)} ${units[power]}`;
}
