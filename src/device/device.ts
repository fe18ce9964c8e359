/**
 * What a device is to the rest: a keeper of weights that compiles graphs into programs. A program is replayed every step
 * with the sizes and tables of that step; caches live in it from step to step.
 */
import type { Graph } from "../tensor/graph.ts";
import type { Sizes } from "../tensor/shape.ts";

export interface Device {
  /** The name given to --device. */
  readonly name: string;
  /** What computes, for people: "TypeScript, float32". */
  readonly kernels: string;
  /** Takes a weight under the name that graphs use. The array may be kept as it is. */
  setWeight(name: string, data: Float32Array | Int32Array): void;
  /** Bytes of the weights as this device holds them. */
  readonly weightBytes: number;
  compile(graph: Graph, options: CompileOptions): Program;
  [Symbol.dispose](): void;
}

export interface CompileOptions {
  /** The greatest value of every named size; `reserve` changes them later. */
  readonly limits: Sizes;
  /** Labels of intermediate values that can be read after a step. */
  readonly keep?: readonly string[];
}

/** The numbers of one step: a value for every named size, an array for every input of the graph. */
export interface StepValues {
  readonly sizes: Sizes;
  readonly inputs: Readonly<Record<string, Int32Array | Float32Array>>;
}

export interface Program {
  readonly graph: Graph;
  /** Makes room for larger steps. Caches keep their content. */
  reserve(limits: Sizes): void;
  run(step: StepValues): Promise<void>;
  /** An output or kept label of the last step, copied. */
  read(name: string): Float32Array | Float64Array | Int32Array;
  /** Makes room for this many rows in all caches of a layout (its name); existing rows keep their content. */
  resizeCaches(layout: string, rows: number): void;
  /** Copies rows within every cache of a layout: the second half of copy-on-write. */
  copyCacheRows(layout: string, from: number, to: number, count: number): void;
  /** Rows of one cache, copied. */
  readCache(name: string, firstRow: number, rows: number): Float32Array | Float64Array;
  /** Bytes of arena and caches. */
  readonly memoryBytes: number;
}
