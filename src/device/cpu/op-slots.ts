/**
 * What the kernel of each op needs to know: addresses and sizes, in the order that is described at the kernel (kernels/*-ops.h).
 */
import { DeviceError } from "../../errors.ts";
import type { GraphNode, Tensor } from "../../tensor/graph.ts";
import type { CandidateAttributes } from "../../tensor/ops/candidate-blocks.ts";
import type { EngramAttributes } from "../../tensor/ops/engram-update.ts";
import type { IndexerAttributes } from "../../tensor/ops/indexer-scores.ts";
import { type BlockRounding, blockCodes } from "../../tensor/ops/round-blocks.ts";
import type { AttentionAttributes } from "../../tensor/ops/sparse-attention.ts";
import { countElements } from "../../tensor/shape.ts";
import { type MatrixFormat, matrixFormats } from "./matrix-formats.ts";
import { isVisionOp, visionOpNames, visionSlotsOf } from "./vision-slots.ts";

/** The order is that of the table in kernels/ops.c. */
export const opNames = [
  "quantize",
  "linear",
  "gatherMatrix",
  "expertsRoute",
  "expertsGather",
  "expertsGateUp",
  "expertsDown",
  "gatherRows",
  "rmsNorm",
  "rope",
  "add",
  "scale",
  "swiglu",
  "routerScores",
  "routingWeights",
  "topK",
  "writeRows",
  "repeatStreams",
  "collapseStreams",
  "expandStreams",
  "hyperConnectionCoefficients",
  "hyperConnectionHead",
  "compressEntries",
  "indexerScores",
  "sparseAttention",
  "readMemory",
  "roundBlocks",
  "roundExpertRows",
  "combineStreams",
  "candidateBlocks",
  "engramUpdate",
  "addBiasOfToken",
  "joinColumns",
  ...visionOpNames,
] as const;
export type OpName = (typeof opNames)[number];

/** Bytes of memory. */
export interface Span {
  readonly address: number;
  readonly bytes: number;
}

/** A matrix as the kernels find it, or the matrices of all experts. */
export interface PlacedMatrix {
  readonly format: MatrixFormat;
  readonly rows: number;
  readonly columns: number;
  readonly rowBytes: number;
  /** Addresses of data and of scales (0 where there are none), one pair an expert. */
  readonly parts: readonly { readonly data: number; readonly scales: number }[];
  /** Where the same addresses stand as doubles, for the kernels of experts. */
  readonly table: number;
  readonly scaleRowElements: number;
  readonly scaleIsFloat: boolean;
  readonly blockRows: number;
  readonly blockColumns: number;
}

/** What the writer needs to know about a program's memory in this step. */
export interface Placement {
  readonly workers: number;
  /** Whether activations are quantised to int8 blocks for weights in block formats. */
  readonly int8: boolean;
  span(tensor: Tensor): Span;
  shape(tensor: Tensor): readonly number[];
  matrix(tensor: Tensor): PlacedMatrix;
  /** Whether the tensor is a weight that is kept in a stored format. */
  isStored(tensor: Tensor): boolean;
  /** Constant numbers of a node in memory (rope frequencies). */
  constants(values: readonly number[]): number;
  /** Where a tensor stands in int8 blocks, as rows of so many columns. */
  quantized(tensor: Tensor, columns: number): { readonly address: number };
  /** Working memory of a node of experts. */
  experts(node: GraphNode): { readonly address: number };
}

/** The op of the kernels and its slots, for every op of the catalogue that is one command. */
export function slotsOf({ op, inputs, outputs, attributes }: GraphNode, place: Placement): [OpName, number[]] {
  const ins = inputs.map((tensor) => place.span(tensor).address);
  const outs = outputs.map((tensor) => place.span(tensor).address);
  const shapes = inputs.map((tensor) => place.shape(tensor));
  const outShapes = outputs.map((tensor) => place.shape(tensor));
  switch (op.name) {
    case "gatherRows": {
      const count = shapes[1]![0]!;
      if (place.isStored(inputs[0]!)) {
        return ["gatherMatrix", [...matrixSlots(place.matrix(inputs[0]!), 0), ins[1]!, count, outs[0]!]];
      }
      return ["gatherRows", [ins[0]!, ins[1]!, outs[0]!, count, countElements(shapes[0]!.slice(1))]];
    }
    case "rmsNorm": {
      const width = shapes[0]!.at(-1)!;
      const { eps } = attributes as { eps: number };
      return ["rmsNorm", [ins[0]!, ins[1] ?? 0, outs[0]!, countElements(shapes[0]!) / width, width, eps]];
    }
    case "rope": {
      const { frequencies, inverse } = attributes as { frequencies: readonly number[]; inverse: boolean };
      const [rows] = shapes[0]!;
      const heads = shapes[0]!.length === 3 ? shapes[0]![1]! : 1;
      const constants = place.constants(frequencies);
      return [
        "rope",
        [ins[0]!, ins[1]!, outs[0]!, rows!, heads, shapes[0]!.at(-1)!, constants, frequencies.length, inverse ? 1 : 0],
      ];
    }
    case "add":
      return ["add", [ins[0]!, ins[1]!, outs[0]!, countElements(shapes[0]!), countElements(shapes[1]!)]];
    case "scale":
      return ["scale", [ins[0]!, outs[0]!, countElements(shapes[0]!), (attributes as { factor: number }).factor]];
    case "swiglu":
      return ["swiglu", [...ins, outs[0]!, countElements(shapes[0]!), (attributes as { limit: number }).limit]];
    case "routerScores":
      return ["routerScores", [ins[0]!, outs[0]!, countElements(shapes[0]!)]];
    case "routingWeights": {
      const { normalize, factor } = attributes as { normalize: boolean; factor: number };
      const [tokens, experts] = shapes[0]!;
      return ["routingWeights", [...ins, outs[0]!, tokens!, experts!, shapes[1]![1]!, normalize ? 1 : 0, factor]];
    }
    case "topK":
      return ["topK", [ins[0]!, outs[0]!, shapes[0]![0]!, shapes[0]![1]!, (attributes as { k: number }).k]];
    case "writeRows": {
      const [count, width] = shapes[1]!;
      return ["writeRows", [...ins, count!, width!]];
    }
    case "repeatStreams":
      return ["repeatStreams", [ins[0]!, outs[0]!, ...outShapes[0]!]];
    case "collapseStreams":
      return ["collapseStreams", [...ins, outs[0]!, ...shapes[0]!]];
    case "expandStreams":
      return ["expandStreams", [...ins, outs[0]!, ...shapes[0]!]];
    case "hyperConnectionCoefficients": {
      const { streams, iterations, eps } = attributes as { streams: number; iterations: number; eps: number };
      return ["hyperConnectionCoefficients", [...ins, ...outs, shapes[0]![0]!, streams, iterations, eps]];
    }
    case "hyperConnectionHead":
      return ["hyperConnectionHead", [...ins, outs[0]!, ...shapes[0]!, (attributes as { eps: number }).eps]];
    case "compressEntries": {
      const { ratio, overlap, pageRows } = attributes as { ratio: number; overlap: boolean; pageRows: number };
      const values = [ins[0]!, shapes[0]![1]!, ins[4]!, shapes[4]![1]!, pageRows];
      const rest = [ins[1]!, ins[5] ?? 0, ins[2]!, ins[3]!, shapes[3]![0]!, ratio, overlap ? 1 : 0, outs[0]!];
      return ["compressEntries", [...values, ...rest]];
    }
    case "indexerScores": {
      const { ratio, pageRows, blockSize } = attributes as IndexerAttributes;
      const keys = [ins[2]!, shapes[2]![1]!, ins[3]!, shapes[3]![1]!, pageRows];
      const pool = inputs[6] ? [ins[6]!, shapes[6]![1]!, blockSize!] : [0, 0, 1];
      const scores = [ratio, outs[0]!, outShapes[0]![1]!];
      return ["indexerScores", [ins[0]!, ins[1]!, ...keys, ins[4]!, ins[5]!, ...shapes[0]!, ...scores, ...pool]];
    }
    case "sparseAttention": {
      const { windowSize, ratio, windowPageRows, entryPageRows } = attributes as AttentionAttributes;
      const [tokens, heads, headDim] = shapes[0]! as [number, number, number];
      const window = [ins[4]!, headDim, ins[5]!, shapes[5]![1]!, windowPageRows];
      const entries = inputs[6] ? [ins[6]!, headDim, ins[7]!, shapes[7]![1]!, entryPageRows] : [0, headDim, 0, 1, 1];
      const selected = inputs[8] ? [ins[8]!, shapes[8]![1]!] : [0, 0];
      const together = headsTogether(tokens, heads, place.workers);
      const sizes = [tokens, heads, headDim, windowSize, ratio, ...outs, together];
      return ["sparseAttention", [...ins.slice(0, 4), ...window, ...entries, ...selected, ...sizes]];
    }
    case "roundBlocks": {
      const width = shapes[0]!.at(-1)!;
      const { format } = attributes as { format: BlockRounding };
      return ["roundBlocks", [ins[0]!, outs[0]!, countElements(shapes[0]!) / width, width, ...roundingSlots(format)]];
    }
    case "combineStreams": {
      const { weights } = attributes as { weights: readonly number[] };
      return ["combineStreams", [ins[0]!, place.constants(weights), outs[0]!, ...shapes[0]!]];
    }
    case "candidateBlocks": {
      const { ratio, blockSize, topBlocks } = attributes as CandidateAttributes;
      return ["candidateBlocks", [...ins, outs[0]!, ...shapes[0]!, ratio, blockSize, topBlocks]];
    }
    case "engramUpdate": {
      const { eps, closedTokenId } = attributes as EngramAttributes;
      return ["engramUpdate", [...ins, outs[0]!, ...shapes[0]!, eps, closedTokenId]];
    }
    case "addBiasOfToken": {
      const { imageTokenId } = attributes as { imageTokenId: number };
      return ["addBiasOfToken", [...ins, outs[0]!, ...shapes[0]!, imageTokenId]];
    }
    case "joinColumns":
      return ["joinColumns", [...ins, outs[0]!, ...shapes[0]!, shapes[1]![1]!]];
    default:
      if (isVisionOp(op.name))
        return [op.name, visionSlotsOf(op.name, { ins, outs, shapes, outShapes, attributes, place })];
      throw new DeviceError(`The CPU kernels have no op "${op.name}"`);
  }
}

/** Size of a block, mantissa bits, least exponent and largest value of a code, and whether the scale is E4M3. */
export function roundingSlots(format: BlockRounding): number[] {
  const { size, mantissaBits, leastExponent, largest } = blockCodes[format];
  return [size, mantissaBits, leastExponent, largest, format === "nvfp4" ? 1 : 0];
}

/** Heads of a token that are worked on together. */
export const mostHeadsTogether = 16;

/** One token has few units of work: its heads are shared out. Many tokens: heads stay together, for their keys are the same. */
function headsTogether(tokens: number, heads: number, workers: number): number {
  const together = tokens >= 2 * workers ? heads : Math.ceil(heads / workers);
  return Math.max(1, Math.min(mostHeadsTogether, together));
}

export function matrixSlots(m: PlacedMatrix, expert: number): number[] {
  const { data, scales } = m.parts[expert]!;
  const scale = [scales, m.scaleRowElements, m.scaleIsFloat ? 1 : 0, m.blockRows, m.blockColumns];
  return [matrixFormats.indexOf(m.format), m.rows, m.columns, data, m.rowBytes, ...scale];
}
