/**
 * GGUF: metadata, tensor infos, aligned data (versions 2 and 3, little-endian). Every count and length from the file is compared
 * with the bytes that are left before anything is allocated by it. 64-bit numbers beyond 2^53 stay bigint. Tensors are read by
 * range when they are asked for.
 */
import { FormatError } from "../errors.ts";
import { finishSteps, finishWithPauses } from "../finish-steps.ts";
import { type GgmlType, ggmlTypes } from "../quant/ggml-types.ts";
import type { ByteSource } from "./byte-source.ts";
import { type Cursor, NeedMoreBytes, newCursor } from "./gguf-cursor.ts";

export interface GgufTensor {
  readonly name: string;
  readonly type: GgmlType;
  /** Slowest axis first, as everywhere here; the file has them the other way round. */
  readonly shape: readonly number[];
  /** First byte and end, counted from the first byte of the file. */
  readonly begin: number;
  readonly end: number;
}

export type GgufScalar = number | bigint | boolean | string;
export type GgufValue = GgufScalar | GgufList;

/** The values of an array where they lie in the header: what nobody reads is never made. */
export interface GgufList extends Iterable<GgufValue> {
  readonly length: number;
  /** As they stand in the file, the lengths of texts and lists included. */
  readonly bytes: Uint8Array;
}

export interface GgufEntry {
  /** "UINT32", "STRING", "ARRAY:INT32" ... */
  readonly type: string;
  readonly value: GgufValue;
}

export interface GgufFile {
  readonly source: ByteSource;
  readonly version: number;
  readonly alignment: number;
  readonly metadata: ReadonlyMap<string, GgufEntry>;
  readonly tensors: ReadonlyMap<string, GgufTensor>;
}

/** Bytes of header that are read at first, and at most: the largest vocabularies in use take 20 MiB. */
const firstRead = 1 << 20;
const maxHeaderBytes = 1 << 26;
/** The largest models in one file, with a tensor for each expert, have 50,000 tensors, and some hundred keys. */
const maxTensors = 1 << 18;
const maxEntries = 1 << 16;
/** Values of all arrays together: each takes many times the byte that it may have in the file, once it is read. */
const maxValues = 1 << 22;
/** Values and tensors that are passed over at once: a millisecond. */
const atOnce = 1 << 14;

/**
 * Reads and checks the header; tensors stay where they are. `pause` is awaited between pieces of the work, where something runs
 * beside it. Throws a FormatError whose code names the fault.
 */
export async function openGguf(source: ByteSource, pause?: () => Promise<void>): Promise<GgufFile> {
  // The header's length is not known before it is read: it is parsed from a beginning that grows.
  for (let length = Math.min(firstRead, source.size); ; length = Math.min(4 * length, source.size)) {
    const bytes = await source.read(0, length);
    try {
      return { source, ...(await finishWithPauses(parseHeader(newCursor(bytes, source.size), bytes), pause)) };
    } catch (error) {
      if (error instanceof FormatError) throw located(error, source.name);
      if (!(error instanceof NeedMoreBytes)) throw error;
      if (length === source.size) throw located(fail("truncated", "the file ends within the header"), source.name);
      if (length >= maxHeaderBytes)
        throw located(fail("header-too-large", "the header is larger than 64 MiB"), source.name);
    }
  }
}

function located(error: FormatError, where: string): FormatError {
  return new FormatError(`Bad GGUF file: ${error.message}`, {
    code: error.code,
    where,
    hint: "Copy or convert the file again",
    cause: error,
  });
}

function fail(code: string, message: string): FormatError {
  return new FormatError(message, { code });
}

function* parseHeader(cursor: Cursor, bytes: Uint8Array): Generator<undefined, Omit<GgufFile, "source">> {
  const magic = cursor.text(4);
  if (magic !== "GGUF") throw fail("bad-magic", "it does not begin with GGUF");
  const version = cursor.u32();
  if ((version & 0xffff) === 0 && version !== 0) throw fail("big-endian", "it is big-endian");
  if (version !== 2 && version !== 3) throw fail("bad-version", `version ${version} is not 2 or 3`);
  const tensorCount = readCount(cursor, 24, maxTensors, "tensors");
  const entryCount = readCount(cursor, 13, maxEntries, "metadata entries");
  const metadata = new Map<string, GgufEntry>();
  const budget: ValueBudget = { left: maxValues };
  for (let i = 0; i < entryCount; i++) {
    const key = cursor.name(65_535, "a key");
    if (key === "") throw fail("empty-key", "a key is empty");
    if (metadata.has(key)) throw fail("duplicate-key", `the key ${quote(key)} stands twice`);
    const type = readType(cursor, quote(key));
    if (type !== arrayType) metadata.set(key, { type: typeNames[type]!, value: readScalar(cursor, type, quote(key)) });
    else {
      const list = yield* passList(cursor, bytes, quote(key), budget, 1);
      metadata.set(key, { type: `ARRAY:${typeNames[list.elementType]}`, value: list });
    }
  }
  const alignment = readAlignment(metadata);
  const infos = new Map<string, Omit<GgufTensor, "begin" | "end"> & { offset: number; bytes: number }>();
  for (let i = 0; i < tensorCount; i++) {
    const info = readTensorInfo(cursor, alignment);
    if (infos.has(info.name)) throw fail("duplicate-tensor", `the tensor ${quote(info.name)} stands twice`);
    infos.set(info.name, info);
    if (i % atOnce === atOnce - 1) yield;
  }
  const dataStart = Math.ceil(cursor.at / alignment) * alignment;
  const tensors = new Map<string, GgufTensor>();
  for (const { name, type, shape, offset, bytes } of infos.values()) {
    const begin = dataStart + offset;
    if (begin + bytes > cursor.size) {
      throw fail(
        "data-past-end",
        `the tensor ${quote(name)} ends at byte ${begin + bytes}, the file has ${cursor.size}`,
      );
    }
    tensors.set(name, { name, type, shape, begin, end: begin + bytes });
  }
  requireApart([...tensors.values()]);
  return { version, alignment, metadata, tensors };
}

function readCount(cursor: Cursor, least: number, most: number, what: string): number {
  const count = cursor.count(least, what);
  if (count > most) throw fail("too-many", `it has ${count} ${what}, more than ${most}`);
  return count;
}

const typeNames = [
  "UINT8",
  "INT8",
  "UINT16",
  "INT16",
  "UINT32",
  "INT32",
  "FLOAT32",
  "BOOL",
  "STRING",
  "ARRAY",
  "UINT64",
  "INT64",
  "FLOAT64",
];
/** Bytes that an element of each type takes at least. */
const leastBytes = [1, 1, 2, 2, 4, 4, 4, 1, 8, 12, 8, 8, 8];
const [boolType, stringType, arrayType] = [7, 8, 9];
const maxArrayDepth = 8;

interface ValueBudget {
  left: number;
}

function readType(cursor: Cursor, what: string): number {
  const type = cursor.u32();
  if (type >= typeNames.length) throw fail("bad-value-type", `${what} has the unknown type ${type}`);
  return type;
}

interface PassedList extends GgufList {
  readonly elementType: number;
}

/** Checks an array and passes over it. */
function* passList(
  cursor: Cursor,
  header: Uint8Array,
  what: string,
  budget: ValueBudget,
  depth: number,
): Generator<undefined, PassedList> {
  if (depth > maxArrayDepth) throw fail("array-too-deep", `${what} is nested deeper than ${maxArrayDepth}`);
  const elementType = readType(cursor, what);
  const least = leastBytes[elementType]!;
  const length = cursor.length(least, what);
  budget.left -= length;
  if (budget.left < 0) throw fail("too-many-values", `the arrays up to ${what} hold more than ${maxValues} values`);
  const begin = cursor.at;
  if (![boolType, stringType, arrayType].includes(elementType)) cursor.skip(length * least);
  else {
    for (let i = 0; i < length; i++) {
      if (elementType === stringType) cursor.skipString(what);
      else if (elementType === arrayType) yield* passList(cursor, header, what, budget, depth + 1);
      else readScalar(cursor, elementType, what);
      if (i % atOnce === atOnce - 1) yield;
    }
  }
  const bytes = header.subarray(begin, cursor.at);
  const values = () => readValues(cursor.from(begin), header, length, elementType);
  return { elementType, length, bytes, [Symbol.iterator]: values };
}

/** Values that were checked when they were passed over. */
function* readValues(cursor: Cursor, header: Uint8Array, count: number, type: number): Generator<GgufValue, undefined> {
  for (let i = 0; i < count; i++) {
    if (type !== arrayType) yield readScalar(cursor, type, "");
    else yield finishSteps(passList(cursor, header, "", { left: maxValues }, 1));
  }
}

function readScalar(cursor: Cursor, type: number, what: string): GgufScalar {
  if (type === stringType) return cursor.string(what);
  if (type !== boolType) return cursor.number(type);
  const byte = cursor.number(0);
  if (byte !== 0 && byte !== 1) throw fail("bad-bool", `${what} is ${byte}, not 0 or 1`);
  return byte === 1;
}

function readAlignment(metadata: ReadonlyMap<string, GgufEntry>): number {
  const entry = metadata.get("general.alignment");
  if (entry === undefined) return 32;
  const { type, value } = entry;
  const isPower = typeof value === "number" && value >= 8 && value <= 2 ** 20 && (value & (value - 1)) === 0;
  if (type !== "UINT32" || !isPower)
    throw fail(
      "bad-alignment",
      `general.alignment is ${typeof value === "object" ? type : String(value).slice(0, 40)}`,
    );
  return value as number;
}

function readTensorInfo(cursor: Cursor, alignment: number) {
  const name = cursor.name(64, "the name of a tensor");
  const what = `the tensor ${quote(name)}`;
  const rank = cursor.u32();
  if (rank > 4) throw fail("too-many-dims", `${what} has ${rank} dimensions`);
  const dims: number[] = [];
  let elements = 1;
  for (let i = 0; i < rank; i++) {
    const dim = Number(cursor.u64());
    elements *= dim;
    if (!Number.isSafeInteger(dim) || !Number.isSafeInteger(elements))
      throw fail("size-overflow", `${what} has too many elements`);
    dims.push(dim);
  }
  const typeNumber = cursor.u32();
  const type = ggmlTypes.get(typeNumber);
  if (type === undefined) throw fail("unknown-type", `${what} has the unknown type ${typeNumber}`);
  const offset = cursor.u64();
  const row = dims[0] ?? 1;
  if (row % type.blockElements !== 0) {
    throw fail(
      "partial-block",
      `${what} has rows of ${row} elements, which is no multiple of ${type.blockElements} (${type.name})`,
    );
  }
  const bytes = (elements / type.blockElements) * type.blockBytes;
  if (!Number.isSafeInteger(bytes)) throw fail("size-overflow", `${what} is too large`);
  if (offset % BigInt(alignment) !== 0n)
    throw fail("misaligned", `${what} is at ${offset}, no multiple of ${alignment}`);
  if (offset > BigInt(cursor.size)) throw fail("data-past-end", `${what} begins behind the end of the file`);
  return { name, type, shape: dims.reverse(), offset: Number(offset), bytes };
}

/** Gaps are legal, overlaps are not. */
function requireApart(tensors: GgufTensor[]): void {
  const full = tensors.filter(({ begin, end }) => end > begin).sort((a, b) => a.begin - b.begin);
  for (let i = 1; i < full.length; i++) {
    if (full[i]!.begin < full[i - 1]!.end) {
      throw fail("overlap", `the tensors ${quote(full[i - 1]!.name)} and ${quote(full[i]!.name)} overlap`);
    }
  }
}

function quote(name: string): string {
  return JSON.stringify(name.length > 80 ? `${name.slice(0, 80)}...` : name);
}
