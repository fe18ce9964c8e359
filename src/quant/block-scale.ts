/**
 * The scale of a block from its largest magnitude, as DeepSeek's quantisers choose it. All steps are float32, in this order:
 * the reciprocal of the largest code is rounded first and multiplied, not divided by.
 */
import { encodeE4m3 } from "./number-codes.ts";

const { fround } = Math;
const words = new Uint32Array(1);
const floats = new Float32Array(words.buffer);

/** E8M0 code of the scale of an E4M3 block (largest code 448). */
export function e4m3BlockScale(amax: number): number {
  return powerOfTwoAbove(fround(Math.max(amax, fround(1e-4)) * fround(1 / 448)));
}

/** E8M0 code of the scale of an E2M1 block (largest code 6). */
export function e2m1BlockScale(amax: number): number {
  return powerOfTwoAbove(fround(Math.max(amax, 6 * 2 ** -126) * fround(1 / 6)));
}

/** E4M3 code of the scale of an E2M1 block whose scale is not a power of two. */
export function e2m1BlockScaleE4m3(amax: number): number {
  return encodeE4m3(fround(Math.max(amax, 6 * 2 ** -9) / 6));
}

/** The exponent byte of the smallest power of two that is not below x, from the bits of x. */
function powerOfTwoAbove(x: number): number {
  floats[0] = x;
  return (words[0]! >>> 23) + ((words[0]! & 0x7fffff) === 0 ? 0 : 1);
}
