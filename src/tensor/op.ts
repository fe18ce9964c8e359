/**
 * What an op is: its shapes, a plain float64 implementation (the oracle that every device is compared with), the
 * tolerance of that comparison and the cases it is made on. Each op has one file in ops/. Ops are pure functions of their
 * inputs; one that writes into a cache returns the written cache as a new tensor in the same memory, so that data flow
 * (and later the gradient) can be read from the graph.
 */
import { countElements, type Shape } from "./shape.ts";

export type DType = "f32" | "i32";

export interface TensorType {
  readonly dtype: DType;
  readonly shape: Shape;
}

/** A buffer of a tensor: Float64Array on the reference device, Float32Array on others, Int32Array for integers. */
export type Elements = Float64Array | Float32Array | Int32Array;

/** One execution of an op: buffers and the numbers of this step. */
export interface Call<Attributes> {
  readonly inputs: readonly Elements[];
  readonly outputs: readonly Elements[];
  readonly inputShapes: readonly (readonly number[])[];
  readonly outputShapes: readonly (readonly number[])[];
  readonly attributes: Attributes;
}

export interface OpCase<Attributes> {
  /** What is particular about the case: "usual", "no token", "odd sizes" ... */
  readonly name: string;
  readonly inputs: readonly CaseTensor[];
  readonly attributes: Attributes;
}

export interface CaseTensor {
  readonly dtype: DType;
  readonly shape: readonly number[];
  readonly values: readonly number[];
}

export interface Op<Attributes> {
  readonly name: string;
  /** The types of the outputs; throws a ShapeError when the inputs do not fit. */
  readonly infer: (inputs: readonly TensorType[], attributes: Attributes) => readonly TensorType[];
  /** Plain loops, the definition of the op. Works on float64 and on float32 buffers (sums are float64 in both). */
  readonly reference: (call: Call<Attributes>) => void;
  /** Output 0 lies in the memory of input 0 and keeps all of it that is not written (caches). */
  readonly writesInput?: true;
  /** Output 0 may take the memory of input 0 when nobody reads that input afterwards (element by element ops). */
  readonly mayOverwrite?: true;
  /** Largest allowed |device - oracle| / (1 + |oracle|) in float32, with its reason beside it. */
  readonly tolerance: number;
  readonly cases: () => readonly OpCase<Attributes>[];
}

export function defineOp<Attributes>(op: Op<Attributes>): Op<Attributes> {
  return op;
}

/** Pseudo-random normal-looking values for cases: the same on every machine (a 32-bit linear congruence, summed). */
export function randomTensor(shape: readonly number[], seed: number, spread = 1): CaseTensor {
  let state = (seed * 2654435761 + 12345) >>> 0;
  const next = () => {
    state = (Math.imul(state, 1664525) + 1013904223) >>> 0;
    return state / 4294967296 - 0.5;
  };
  const values = Array.from({ length: countElements(shape) }, () =>
    Math.fround((next() + next() + next()) * 2 * spread),
  );
  return { dtype: "f32", shape, values };
}

export function integerTensor(shape: readonly number[], values: readonly number[]): CaseTensor {
  return { dtype: "i32", shape, values };
}
