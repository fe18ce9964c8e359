/**
 * safetensors: an 8-byte length, a JSON header, raw tensors (github.com/huggingface/safetensors). The header comes from
 * outside: every number is bounded before it is used, keys may not repeat, the tensors must tile the data without gap or
 * overlap. Names are data (`__proto__` is a legal one). Tensors are read by range when they are asked for.
 */
import { FormatError } from "../errors.ts";
import { finishWithPauses } from "../finish-steps.ts";
import { type Json, JsonNumber, JsonObject, JsonReader } from "../json/parse-json.ts";
import type { ByteSource } from "./byte-source.ts";

/** Bits of an element of each dtype. */
const dtypeBits: ReadonlyMap<string, number> = new Map([
  ["F4", 4],
  ["F6_E2M3", 6],
  ["F6_E3M2", 6],
  ...["BOOL", "U8", "I8", "F8_E5M2", "F8_E4M3", "F8_E8M0", "F8_E4M3FNUZ", "F8_E5M2FNUZ"].map(
    (name) => [name, 8] as const,
  ),
  ...["I16", "U16", "F16", "BF16"].map((name) => [name, 16] as const),
  ...["I32", "U32", "F32"].map((name) => [name, 32] as const),
  ...["C64", "F64", "I64", "U64"].map((name) => [name, 64] as const),
]);

export interface TensorInfo {
  readonly name: string;
  readonly dtype: string;
  readonly shape: readonly number[];
  /** First byte and end, counted from the first byte of the file. */
  readonly begin: number;
  readonly end: number;
}

export interface SafetensorsFile {
  readonly source: ByteSource;
  readonly tensors: ReadonlyMap<string, TensorInfo>;
  readonly metadata: ReadonlyMap<string, string>;
}

const maxHeaderBytes = 100_000_000;

/** Values and tensors that are read at once: a millisecond or two. */
const atOnce = 4096;

/**
 * Reads and checks the header; tensors stay where they are. `pause` is awaited between pieces of the work, where something runs
 * beside it. Throws a FormatError whose code names the fault.
 */
export async function openSafetensors(source: ByteSource, pause?: () => Promise<void>): Promise<SafetensorsFile> {
  const fail = (code: string, message: string, hint?: string): never => {
    throw new FormatError(message, { code, where: source.name, ...(hint === undefined ? {} : { hint }) });
  };
  if (source.size < 8)
    fail("too-short", `A safetensors file has at least 8 bytes, this one has ${source.size}`, "Download it again");
  const prefix = await source.read(0, 8);
  const length = new DataView(prefix.buffer).getBigUint64(0, true); // 64 bits: compared before any cast
  if (length > BigInt(maxHeaderBytes))
    fail("header-too-large", `The header claims ${length} bytes`, "Is it a safetensors file?");
  const dataStart = 8 + Number(length);
  if (dataStart > source.size) {
    fail(
      "header-past-end",
      `The header claims ${length} bytes, the file has ${source.size}`,
      "It is cut off; copy it again",
    );
  }
  const header = await source.read(8, Number(length));
  try {
    return { source, ...(await finishWithPauses(parseHeader(header, dataStart, source.size), pause)) };
  } catch (error) {
    if (!(error instanceof FormatError)) throw error;
    throw new FormatError(`Bad safetensors header: ${error.message}`, {
      code: error.code === "json" ? "header-not-json" : error.code,
      where: source.name,
      hint: error.hint ?? "Copy or convert the file again",
      cause: error,
    });
  }
}

/** The bytes of a tensor, in memory of their own. */
export function readTensor({ source }: SafetensorsFile, info: TensorInfo): Promise<Uint8Array<ArrayBuffer>> {
  return source.read(info.begin, info.end - info.begin);
}

function* parseHeader(
  bytes: Uint8Array,
  dataStart: number,
  fileSize: number,
): Generator<undefined, Omit<SafetensorsFile, "source">> {
  if (bytes[0] !== 0x7b) throw new FormatError('the first byte is not "{"', { code: "header-not-object" });
  const reader = new JsonReader();
  reader.give(decodeUtf8(bytes), true);
  while (!reader.advance(atOnce)) yield;
  const header = reader.value as JsonObject; // it begins with "{"
  requireNoDuplicate(header, "the header");
  const tensors = new Map<string, TensorInfo>();
  let metadata: ReadonlyMap<string, string> = new Map();
  for (const [name, value] of header.entries) {
    if (name === "__metadata__") metadata = parseMetadata(value);
    else tensors.set(name, parseTensorInfo(name, value, dataStart, fileSize));
    if (tensors.size % atOnce === 0) yield;
  }
  requireTiling([...tensors.values()], dataStart, fileSize);
  return { tensors, metadata };
}

function decodeUtf8(bytes: Uint8Array): string {
  try {
    return new TextDecoder("utf-8", { fatal: true, ignoreBOM: true }).decode(bytes);
  } catch (error) {
    throw new FormatError("it is not UTF-8", { code: "header-not-utf8", cause: error });
  }
}

function requireNoDuplicate(object: JsonObject, what: string): void {
  const key = object.duplicateKey();
  if (key !== undefined)
    throw new FormatError(`the key ${quote(key)} stands twice in ${what}`, { code: "duplicate-key" });
}

function parseMetadata(value: Json): Map<string, string> {
  if (!(value instanceof JsonObject)) throw new FormatError("__metadata__ is not an object", { code: "bad-metadata" });
  requireNoDuplicate(value, "__metadata__");
  const metadata = new Map<string, string>();
  for (const [key, text] of value.entries) {
    if (typeof text !== "string") {
      throw new FormatError(`__metadata__ ${quote(key)} is not a string`, { code: "bad-metadata" });
    }
    metadata.set(key, text);
  }
  return metadata;
}

function parseTensorInfo(name: string, value: Json, dataStart: number, fileSize: number): TensorInfo {
  const what = `tensor ${quote(name)}`;
  if (!(value instanceof JsonObject)) throw new FormatError(`${what} is not an object`, { code: "bad-tensor-info" });
  requireNoDuplicate(value, what);
  const field = (key: string): Json => {
    const found = value.get(key);
    if (found === undefined) throw new FormatError(`${what} has no ${key}`, { code: "missing-field" });
    return found;
  };
  const dtype = field("dtype");
  const bits = typeof dtype === "string" ? dtypeBits.get(dtype) : undefined;
  if (typeof dtype !== "string" || bits === undefined) {
    throw new FormatError(`${what} has the unknown dtype ${quote(String(dtype))}`, { code: "unknown-dtype" });
  }
  const shape = parseIntegers(field("shape"), `${what}: shape`);
  const offsets = parseIntegers(field("data_offsets"), `${what}: data_offsets`);
  const [begin, end] = offsets;
  if (offsets.length !== 2 || begin! > end!) {
    throw new FormatError(`${what}: data_offsets are not [begin, end]`, { code: "bad-offsets" });
  }
  const dataSize = fileSize - dataStart;
  if (end! > dataSize) {
    throw new FormatError(`${what} ends at byte ${end}, the data has ${dataSize}`, {
      code: "data-past-end",
      hint: "The file is cut off; copy it again",
    });
  }
  const bytes = bytesOf(shape, bits, what);
  if (bytes !== end! - begin!) {
    throw new FormatError(`${what} takes ${bytes} bytes, its offsets span ${end! - begin!}`, { code: "size-mismatch" });
  }
  return { name, dtype, shape, begin: dataStart + begin!, end: dataStart + end! };
}

function parseIntegers(value: Json, what: string): number[] {
  if (!Array.isArray(value)) throw new FormatError(`${what} is not a list`, { code: "bad-tensor-info" });
  return (value as readonly Json[]).map((item) => {
    if (!(item instanceof JsonNumber) || !/^\d+$/.test(item.text)) {
      const text = item instanceof JsonNumber ? item.text : typeof item;
      throw new FormatError(`${what} holds ${text.slice(0, 40)}, which is no whole number`, { code: "bad-number" });
    }
    if (item.value > Number.MAX_SAFE_INTEGER) {
      throw new FormatError(`${what} holds ${item.text.slice(0, 40)}, which is too large`, {
        code: "number-too-large",
      });
    }
    return item.value;
  });
}

/** Dimensions are multiplied in order, each product checked: a later 0 does not excuse an overflow. */
function bytesOf(shape: readonly number[], bits: number, what: string): number {
  let elements = 1;
  for (const dim of shape) {
    elements *= dim;
    if (elements > Number.MAX_SAFE_INTEGER)
      throw new FormatError(`${what} has too many elements`, { code: "size-overflow" });
  }
  if (elements * bits > Number.MAX_SAFE_INTEGER)
    throw new FormatError(`${what} is too large`, { code: "size-overflow" });
  if ((elements * bits) % 8 !== 0) throw new FormatError(`${what} ends within a byte`, { code: "partial-byte" });
  return (elements * bits) / 8;
}

function requireTiling(tensors: TensorInfo[], dataStart: number, fileSize: number): void {
  tensors.sort((a, b) => a.begin - b.begin || a.end - b.end);
  let reached = dataStart;
  for (const { name, begin, end } of tensors) {
    if (begin < reached) throw new FormatError(`tensor ${quote(name)} overlaps another`, { code: "overlap" });
    if (begin > reached) throw new FormatError(`no tensor covers the bytes before ${quote(name)}`, { code: "hole" });
    reached = end;
  }
  if (reached !== fileSize) {
    throw new FormatError(`${fileSize - reached} bytes follow the last tensor`, { code: "trailing-data" });
  }
}

/** A name from the file, short enough for a message. */
function quote(name: string): string {
  return JSON.stringify(name.length > 80 ? `${name.slice(0, 80)}...` : name);
}
