/**
 * Weights as files store them, and how they become float32: plain floats, FP8 tiles and FP4 rows with their scales. Which
 * a tensor is, its dtype tells; its name never does.
 */
import type { StoredMatrix } from "../device/device.ts";
import { FormatError } from "../errors.ts";
import type { SafetensorsFile, TensorInfo } from "../format/safetensors.ts";
import type { Parameter } from "../model/parameters.ts";
import { decodeBf16, decodeF16 } from "../quant/number-codes.ts";
import {
  decodeE2m1Rows,
  decodeE4m3Blocks,
  decodeE8m0Scales,
  fp4BlockColumns,
  requireE8m0Scales,
  scaleShape,
} from "../quant/scaled-blocks.ts";
import { countElements } from "../tensor/shape.ts";

interface StoredTensor {
  readonly file: SafetensorsFile;
  readonly info: TensorInfo;
}

export interface StoredWeight extends StoredTensor {
  readonly scale: StoredTensor | undefined;
  /** A part of a stacked tensor: first element, number of elements, and the shape of the whole. */
  readonly elements: { readonly start: number; readonly count: number; readonly shape: readonly number[] } | undefined;
}

const floatBytes: Readonly<Record<string, number>> = { F32: 4, F16: 2, BF16: 2 };
/** Containers of two FP4 codes a byte; F4's shape counts elements, that of the others bytes. */
const fp4Containers = ["I8", "U8", "F4"];

export function isMatrixDtype(dtype: string): boolean {
  return dtype in floatBytes || dtype === "F8_E4M3" || fp4Containers.includes(dtype);
}

/** The shapes that a weight of this logical shape and dtype must have in a file, and its scale where it needs one. */
export function storedShapes(
  dtype: string,
  shape: readonly number[],
  [blockRows, blockColumns]: readonly [number, number],
): { weight: readonly number[]; scale: readonly number[] | undefined } {
  const [rows, columns] = shape as [number, number];
  if (dtype === "F8_E4M3") return { weight: shape, scale: scaleShape({ rows, columns, blockRows, blockColumns }) };
  if (!fp4Containers.includes(dtype)) return { weight: shape, scale: undefined };
  const stored = dtype === "F4" ? columns : columns / 2;
  return { weight: [...shape.slice(0, -1), stored], scale: [...shape.slice(0, -1), columns / fp4BlockColumns] };
}

/** All parts one after another, dequantised. `blockSize` is that of the checkpoint's FP8 tiles. */
export async function loadFloats(
  parameter: Parameter,
  parts: readonly StoredWeight[],
  blockSize: readonly [number, number],
): Promise<Float32Array> {
  const [only] = parts;
  if (parts.length === 1 && only!.info.dtype === "F32" && only!.elements === undefined) {
    return new Float32Array((await readBytes(only!)).buffer); // the bytes that were read, not a copy
  }
  const data = new Float32Array(countElements(parameter.shape));
  const each = data.length / parts.length;
  for (const [i, part] of parts.entries()) await decodeInto(part, data.subarray(i * each, (i + 1) * each), blockSize);
  return data;
}

async function decodeInto(
  weight: StoredWeight,
  into: Float32Array,
  blockSize: readonly [number, number],
): Promise<void> {
  const bytes = await readBytes(weight);
  switch (weight.info.dtype) {
    case "F32":
      into.set(new Float32Array(bytes.buffer));
      break;
    case "F16":
      decodeF16(new Uint16Array(bytes.buffer), into);
      break;
    case "BF16":
      decodeBf16(new Uint16Array(bytes.buffer), into);
      break;
    case "F8_E4M3": {
      const [rows, columns] = weight.info.shape as [number, number];
      const [blockRows, blockColumns] = blockSize;
      decodeE4m3Blocks(bytes, await loadScales(weight), { rows, columns, blockRows, blockColumns }, into);
      break;
    }
    default:
      decodeE2m1Rows(bytes, await loadScales(weight), into);
  }
}

/** Where the matrices of a parameter lie in the files; undefined for integers and for parts of stacked tensors. */
export function storedMatrix(
  parameter: Parameter,
  parts: readonly StoredWeight[],
  [fp8Rows, fp8Columns]: readonly [number, number],
): StoredMatrix | undefined {
  const { dtype } = parts[0]!.info;
  if (parameter.kind === "integers" || parts.some(({ info, elements }) => elements || info.dtype !== dtype))
    return undefined;
  const isFloat = parts[0]!.scale?.info.dtype === "F32";
  if (parts.some(({ scale }) => (scale?.info.dtype === "F32") !== isFloat)) return undefined;
  const [rows, columns] = parameter.shape.slice(-2) as [number, number];
  const format = dtype === "F8_E4M3" ? "FP8" : fp4Containers.includes(dtype) ? "FP4" : dtype;
  const [blockRows, blockColumns] =
    format === "FP8" ? [fp8Rows, fp8Columns] : format === "FP4" ? [1, fp4BlockColumns] : [1, 1];
  const bytes = ({ file, info }: StoredTensor) => ({
    source: file.source,
    offset: info.begin,
    length: info.end - info.begin,
  });
  return {
    format,
    rows,
    columns,
    experts: parameter.shape.length === 3 ? parameter.shape[0]! : 1,
    parts: parts.map((part) => ({ data: bytes(part), scales: part.scale && bytes(part.scale) })),
    scaleIsFloat: isFloat,
    blockRows,
    blockColumns,
  };
}

/** The bytes of a tensor, or of the part of it that is meant. Only whole-byte dtypes are cut. */
function readBytes({ file, info, elements }: StoredWeight): Promise<Uint8Array<ArrayBuffer>> {
  if (elements === undefined) return file.source.read(info.begin, info.end - info.begin);
  const width = floatBytes[info.dtype]!;
  return file.source.read(info.begin + elements.start * width, elements.count * width);
}

/** Throws a FormatError for an E8M0 scale that is no number. */
export async function checkScales(parts: readonly StoredWeight[]): Promise<void> {
  for (const part of parts) {
    if (part.scale === undefined || part.scale.info.dtype === "F32") continue;
    // Given back at once: those of a large model are a GB, and would pile up until garbage is collected.
    (await storedScales(part)).buffer.transfer(0);
  }
}

async function loadScales(part: StoredWeight): Promise<Float32Array> {
  const bytes = await storedScales(part);
  return part.scale!.info.dtype === "F32" ? new Float32Array(bytes.buffer) : decodeE8m0Scales(bytes);
}

/** The bytes of the scales, in F32 or as E8M0 codes without one that is no number. */
async function storedScales({ scale }: StoredWeight): Promise<Uint8Array<ArrayBuffer>> {
  const { file, info } = scale!; // faults were refused when the checkpoint was opened
  const bytes = await file.source.read(info.begin, info.end - info.begin);
  if (info.dtype === "F32") return bytes;
  try {
    requireE8m0Scales(bytes);
  } catch (error) {
    throw new FormatError((error as Error).message, {
      code: "bad-scale",
      where: `${file.source.name}, ${info.name}`,
      hint: "The file is damaged; download it again",
      cause: error,
    });
  }
  return bytes;
}

/** Integers as int32; a value that does not fit is an error. */
export async function loadIntegers({ file, info }: StoredWeight): Promise<Int32Array> {
  const bytes = await file.source.read(info.begin, info.end - info.begin);
  if (info.dtype === "I32") return new Int32Array(bytes.buffer);
  return Int32Array.from(new BigInt64Array(bytes.buffer), (value) => {
    if (value >= -(2n ** 31n) && value < 2n ** 31n) return Number(value);
    throw new FormatError(`The value ${value} does not fit 32 bits`, {
      code: "bad-weights",
      where: `${file.source.name}, ${info.name}`,
    });
  });
}
