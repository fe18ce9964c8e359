/**
 * The tensor types of GGUF files: elements and bytes of a block, and how a block becomes float32. Numbers and layouts are those
 * of ggml. A row is a whole number of blocks.
 */

import * as blocks from "./ggml-blocks.ts";
import * as gridBlocks from "./ggml-grid-blocks.ts";
import * as superBlocks from "./ggml-super-blocks.ts";
import { decodeBf16, decodeF16 } from "./number-codes.ts";

/** Decodes whole blocks: `bytes` begins at the first block and `into` takes all of their elements. */
export type BlockDecoder = (bytes: Uint8Array, into: Float32Array) => void;

export interface GgmlType {
  readonly name: string;
  readonly blockElements: number;
  readonly blockBytes: number;
  /** Undefined where the values are no floats, or the codebook is not known here. */
  readonly decode: BlockDecoder | undefined;
}

const type = (name: string, blockElements: number, blockBytes: number, decode?: BlockDecoder): GgmlType => ({
  name,
  blockElements,
  blockBytes,
  decode,
});

/** By the number in the file. Numbers that are missing here were removed from ggml, or are unknown. */
export const ggmlTypes: ReadonlyMap<number, GgmlType> = new Map([
  [0, type("F32", 1, 4, (bytes, into) => into.set(new Float32Array(aligned(bytes, 4))))],
  [1, type("F16", 1, 2, (bytes, into) => decodeF16(new Uint16Array(aligned(bytes, 2)), into))],
  [2, type("Q4_0", 32, 18, blocks.decodeQ4_0)],
  [3, type("Q4_1", 32, 20, blocks.decodeQ4_1)],
  [6, type("Q5_0", 32, 22, blocks.decodeQ5_0)],
  [7, type("Q5_1", 32, 24, blocks.decodeQ5_1)],
  [8, type("Q8_0", 32, 34, blocks.decodeQ8_0)],
  [9, type("Q8_1", 32, 36)],
  [10, type("Q2_K", 256, 84, superBlocks.decodeQ2_K)],
  [11, type("Q3_K", 256, 110, superBlocks.decodeQ3_K)],
  [12, type("Q4_K", 256, 144, superBlocks.decodeQ4_K)],
  [13, type("Q5_K", 256, 176, superBlocks.decodeQ5_K)],
  [14, type("Q6_K", 256, 210, superBlocks.decodeQ6_K)],
  [15, type("Q8_K", 256, 292)],
  [16, type("IQ2_XXS", 256, 66, gridBlocks.decodeIq2Xxs)],
  [17, type("IQ2_XS", 256, 74)],
  [18, type("IQ3_XXS", 256, 98, gridBlocks.decodeIq3Xxs)],
  [19, type("IQ1_S", 256, 50)],
  [20, type("IQ4_NL", 32, 18, blocks.decodeIq4Nl)],
  [21, type("IQ3_S", 256, 110)],
  [22, type("IQ2_S", 256, 82)],
  [23, type("IQ4_XS", 256, 136, superBlocks.decodeIq4Xs)],
  [24, type("I8", 1, 1)],
  [25, type("I16", 1, 2)],
  [26, type("I32", 1, 4)],
  [27, type("I64", 1, 8)],
  [28, type("F64", 1, 8)],
  [29, type("IQ1_M", 256, 56)],
  [30, type("BF16", 1, 2, (bytes, into) => decodeBf16(new Uint16Array(aligned(bytes, 2)), into))],
  [34, type("TQ1_0", 256, 54, superBlocks.decodeTq1)],
  [35, type("TQ2_0", 256, 66, superBlocks.decodeTq2)],
  [39, type("MXFP4", 32, 17, blocks.decodeMxfp4)],
  [40, type("NVFP4", 64, 36, blocks.decodeNvfp4)],
  [41, type("Q1_0", 128, 18, blocks.decodeQ1_0)],
  [42, type("Q2_0", 64, 18, blocks.decodeQ2_0)],
]);

/** The bytes as a buffer of their own where they do not begin at a multiple of the element size. */
function aligned(bytes: Uint8Array, size: number): ArrayBuffer {
  if (bytes.byteLength === bytes.buffer.byteLength) return bytes.buffer as ArrayBuffer;
  return Uint8Array.from(bytes.subarray(0, bytes.length - (bytes.length % size))).buffer;
}
