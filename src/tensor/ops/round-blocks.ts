/**
 * Values rounded to the codes of a block format and back: what a cache or a product in that format would see
 *   x [..., width] -> y of the same shape; a block is `size` neighbouring channels of a row, the last may be short
 *   fp8: E4M3, blocks of 32, scale a power of two      mxfp4: E2M1, 32, a power of two      nvfp4: E2M1, 16, scale E4M3
 * (OCP 8-bit floating point; OCP microscaling formats 1.0; NVFP4.) DeepSeek V4.1 was trained with its caches rounded so. All in
 * float32, whatever the buffers are: the scale of a power of two is the least one that holds the greatest value of the block.
 */
import { defineOp, randomTensor } from "../op.ts";

export type BlockRounding = "fp8" | "mxfp4" | "nvfp4";

interface Code {
  readonly size: number;
  readonly mantissaBits: number;
  /** Exponent of the least normal number. */
  readonly leastExponent: number;
  readonly largest: number;
}

const e2m1 = { mantissaBits: 1, leastExponent: 0, largest: 6 };
const e4m3 = { mantissaBits: 3, leastExponent: -6, largest: 448 };
export const blockCodes: Readonly<Record<BlockRounding, Code>> = {
  fp8: { size: 32, ...e4m3 },
  mxfp4: { size: 32, ...e2m1 },
  nvfp4: { size: 16, ...e2m1 },
};

export const roundBlocks = defineOp<{ readonly format: BlockRounding }>({
  name: "roundBlocks",
  infer([x]) {
    return [x!];
  },
  reference({ inputs: [x], outputs: [y], inputShapes: [shape], attributes: { format } }) {
    const width = shape!.at(-1)!;
    const { size } = blockCodes[format];
    for (let row = 0; row < y!.length; row += width) {
      for (let begin = row; begin < row + width; begin += size) {
        const end = Math.min(begin + size, row + width);
        let largest = 0;
        for (let i = begin; i < end; i++) largest = Math.max(largest, Math.abs(Math.fround(x![i]!)));
        const scale = scaleOf(format, largest);
        for (let i = begin; i < end; i++) y![i] = roundToCode(Math.fround(x![i]!) / scale, blockCodes[format]) * scale;
      }
    }
  },
  mayOverwrite: true,
  tolerance: 0, // the same codes, bit by bit
  cases: () =>
    (["fp8", "mxfp4", "nvfp4"] as const).flatMap((format, i) => [
      { name: `${format}, several blocks`, inputs: [randomTensor([3, 96], i)], attributes: { format } },
      { name: `${format}, a short block`, inputs: [randomTensor([2, 2, 40], 3 + i, 100)], attributes: { format } },
      { name: `${format}, far ends`, inputs: [farEnds], attributes: { format } },
      { name: `${format}, no row`, inputs: [randomTensor([0, 32], 6)], attributes: { format } },
    ]),
});

/** Zero, denormals, ties of every code, and values whose scale is at a border or at its end. */
const farEnds = {
  dtype: "f32" as const,
  shape: [6, 32],
  values: [
    ...new Array<number>(32).fill(0),
    ...Array.from({ length: 32 }, (_, i) => Math.fround((i - 16) * 1e-40)),
    ...Array.from({ length: 32 }, (_, i) => (i - 16) / 4),
    ...Array.from({ length: 32 }, (_, i) => 448 - i * 14),
    ...Array.from({ length: 32 }, (_, i) => (i % 2 === 0 ? 1 : -1) * (2 ** (i - 20) * 1.75)),
    ...Array.from({ length: 32 }, (_, i) => Math.fround(1e30 / (i + 1))),
  ],
};

const word = new Float32Array(1);
const bits = new Uint32Array(word.buffer);

function scaleOf(format: BlockRounding, largest: number): number {
  if (format === "fp8")
    return powerOfTwoAbove(Math.fround(Math.max(largest, Math.fround(1e-4)) * Math.fround(1 / 448)));
  if (format === "mxfp4") return powerOfTwoAbove(Math.fround(Math.max(largest, 6 * 2 ** -126) * Math.fround(1 / 6)));
  return roundToCode(Math.fround(Math.max(largest, 6 * 2 ** -9) / 6), e4m3);
}

/** The least power of two that is not below a positive float32. */
function powerOfTwoAbove(x: number): number {
  word[0] = x;
  bits[0] = bits[0]! + 0x7fffff;
  bits[0] = bits[0]! & 0xff800000;
  return word[0]!;
}

/** To the nearest code, ties to the even one, saturating. */
function roundToCode(x: number, { mantissaBits, leastExponent, largest }: Omit<Code, "size">): number {
  const bounded = Math.min(Math.max(Math.fround(x), -largest), largest);
  word[0] = bounded;
  const exponent = Math.max(((bits[0]! >>> 23) & 255) - 127, leastExponent);
  const step = 2 ** (exponent - mantissaBits);
  // The sum with 1.5 * 2^23 has no bits for a fraction in float32.
  return (Math.fround(bounded / step + 12582912) - 12582912) * step;
}
