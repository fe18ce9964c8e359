/**
 * What a device is to the rest: a keeper of weights that compiles graphs into programs. A program is replayed every step
 * with the sizes and tables of that step; caches live in it from step to step.
 */
import { DeviceError } from "../errors.ts";
import type { Graph } from "../tensor/graph.ts";
import type { Sizes } from "../tensor/shape.ts";

export interface Device {
  /** The name given to --device. */
  readonly name: string;
  /** What computes, for people: "TypeScript, float32". */
  readonly kernels: string;
  /** Takes a weight under the name that graphs use. The array may be kept as it is. */
  setWeight(name: string, data: Float32Array | Int32Array): void;
  /**
   * Takes a matrix in the form that files have it in. Absent, or false: this device does not read that format; dequantise it
   * and use `setWeight`.
   */
  setMatrix?(name: string, matrix: StoredMatrix): Promise<boolean>;
  /** Threads that compute. */
  readonly threads: number;
  /** Bytes of the weights as this device holds them. */
  readonly weightBytes: number;
  /** Bytes of one of them. */
  bytesOfWeight(name: string): number;
  /** Bytes a second that the device can read from memory, measured; absent where nothing measures it. */
  readCeiling?(): Promise<number>;
  compile(graph: Graph, options: CompileOptions): Program;
  /** Steps that run or are asked for afterwards fail with a DeviceError of the code "disposed". */
  [Symbol.dispose](): void;
}

/** A matrix [rows, columns] as files have it, or one matrix for each expert. */
export interface StoredMatrix {
  /** Name of a GGUF block type, F32, F16, BF16, FP8 (E4M3 in tiles with scales) or FP4 (E2M1 in blocks of 32 with scales). */
  readonly format: string;
  readonly rows: number;
  readonly columns: number;
  /** One an expert, or one that holds all experts one after another. */
  readonly parts: readonly { readonly data: StoredBytes; readonly scales: StoredBytes | undefined }[];
  readonly experts: number;
  /** Scales that lie apart (FP8, FP4): float32, or E8M0 bytes; rows and columns that share one. */
  readonly scaleIsFloat: boolean;
  readonly blockRows: number;
  readonly blockColumns: number;
}

/** A stretch of a file. */
export interface StoredBytes {
  readonly source: { read(offset: number, length: number): Promise<Uint8Array<ArrayBuffer>> };
  readonly offset: number;
  readonly length: number;
}

export interface CompileOptions {
  /** The greatest value of every named size; `reserve` changes them later. */
  readonly limits: Sizes;
  /** Labels of intermediate values that can be read after a step. */
  readonly keep?: readonly string[];
  /** For long steps: it is called between their ops, and steps of other programs come in between, where the device can do that. */
  readonly onPause?: () => void;
}

/** The numbers of one step: a value for every named size, an array for every input of the graph. */
export interface StepValues {
  readonly sizes: Sizes;
  readonly inputs: Readonly<Record<string, Int32Array | Float32Array>>;
  /** Inputs that come while the step runs: what does not need them may be computed before. If one fails, so does the step. */
  readonly late?: Readonly<Record<string, Promise<Float32Array>>>;
}

/** The step when all its inputs are there: for devices that begin with everything. */
export async function withLateInputs({ sizes, inputs, late = {} }: StepValues): Promise<StepValues> {
  const entries = Object.entries(late).map(async ([name, values]) => [name, await values] as const);
  return { sizes, inputs: { ...inputs, ...Object.fromEntries(await Promise.all(entries)) } };
}

/** "stopped": it was ended early. */
export type StepOutcome = "done" | "stopped";

export interface Program {
  readonly graph: Graph;
  /** Makes room for larger steps. Caches keep their content. */
  reserve(limits: Sizes): void;
  /**
   * Computes a step. When `signal` is aborted meanwhile, it ends after the op that is being computed: then nothing of it can be
   * read, and the rows of caches that it was to write hold anything. All else is as before.
   */
  run(step: StepValues, signal?: AbortSignal): Promise<StepOutcome>;
  /** An output or kept label of the last step, copied. Throws a DeviceError when that was stopped. */
  read(name: string): Float32Array | Float64Array | Int32Array;
  /** Makes room for this many rows in all caches of a layout (its name); existing rows keep their content. */
  resizeCaches(layout: string, rows: number): void;
  /** Copies rows within every cache of a layout: the second half of copy-on-write. */
  copyCacheRows(layout: string, from: number, to: number, count: number): void;
  /** Rows of one cache, copied, as the device stores them. */
  readCache(name: string, firstRow: number, rows: number): Promise<Float32Array | Float64Array>;
  /** Puts rows back that `readCache` of the same kind of device gave: whole rows, within what `resizeCaches` made room for. */
  writeCache(name: string, firstRow: number, data: Float32Array | Float64Array): void;
  /** Bytes of arena and caches. */
  readonly memoryBytes: number;
}

/** Checks what is about to be written into a cache: kernels trust what lies there. */
export function requireWholeRows(
  name: string,
  { firstRow, width, values, room }: { firstRow: number; width: number; values: number; room: number },
): void {
  const isWhole = Number.isInteger(firstRow) && firstRow >= 0 && values % width === 0;
  if (isWhole && firstRow * width + values <= room) return;
  throw new DeviceError(
    `${values} values do not fit into the cache "${name}" from row ${firstRow} on: it has ${room / width} rows of ${width}`,
    { code: "cache-rows" },
  );
}

/** What a step meets whose device was disposed of. */
export function deviceDisposed(): DeviceError {
  return new DeviceError("The model, or its device, was disposed of", {
    code: "disposed",
    hint: "Wait for the answers before disposing of the model, or load it again",
  });
}
