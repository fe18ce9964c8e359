/**
 * Small floating-point codes and the float32 values they stand for. F16 and BF16 are IEEE half and the upper half of a
 * float32; E4M3 and E5M2 are the 8-bit formats of the OCP specification (E4M3 without infinities); E2M1 has 4 bits, E8M0 is a
 * power of two without sign. Rounding is to nearest, ties to the even code; E4M3, E5M2 and E2M1 saturate.
 */

/** Exponent and mantissa bits and bias of a code with a sign bit in front. */
interface CodeLayout {
  readonly mantissaBits: number;
  readonly bias: number;
  /** The largest magnitude code that is a finite number. */
  readonly largestCode: number;
}

const e4m3: CodeLayout = { mantissaBits: 3, bias: 7, largestCode: 0x7e };
const e5m2: CodeLayout = { mantissaBits: 2, bias: 15, largestCode: 0x7b };
const e2m1: CodeLayout = { mantissaBits: 1, bias: 1, largestCode: 7 };

function magnitude({ mantissaBits, bias }: CodeLayout, code: number): number {
  const exponent = code >> mantissaBits;
  const fraction = (code & ((1 << mantissaBits) - 1)) / (1 << mantissaBits);
  return exponent === 0 ? fraction * 2 ** (1 - bias) : (1 + fraction) * 2 ** (exponent - bias);
}

/** A table of all codes: magnitudes, then the same negative. `special` gives the value of codes beyond the largest. */
function codeTable(layout: CodeLayout, codes: number, special: (code: number) => number): Float32Array {
  const half = codes / 2;
  return Float32Array.from({ length: codes }, (_, code) => {
    const size = code % half;
    const value = size > layout.largestCode ? special(size) : magnitude(layout, size);
    return code < half ? value : -value;
  });
}

/** Value of each E4M3 code; 0x7f and 0xff are NaN. */
export const e4m3Values = codeTable(e4m3, 256, () => Number.NaN);
/** Value of each E5M2 code; 0x7c is infinity, above it NaN. */
export const e5m2Values = codeTable(e5m2, 256, (code) => (code === 0x7c ? Number.POSITIVE_INFINITY : Number.NaN));
/** Value of each E2M1 code: 0 .5 1 1.5 2 3 4 6 and their negatives. */
export const e2m1Values = codeTable(e2m1, 16, () => Number.NaN);
/** Value of each E8M0 code: 2^(code - 127), 255 is NaN. Code 0 is a denormal float32. */
export const e8m0Values = Float32Array.from({ length: 256 }, (_, code) =>
  code === 255 ? Number.NaN : 2 ** (code - 127),
);

export const encodeE4m3 = (x: number): number => encode(e4m3, x, 0x80, 0x7f);
export const encodeE5m2 = (x: number): number => encode(e5m2, x, 0x80, 0x7f);
/** NaN has no code in E2M1 and becomes 0. */
export const encodeE2m1 = (x: number): number => encode(e2m1, x, 8, 0);

function encode(layout: CodeLayout, x: number, signBit: number, nan: number): number {
  if (Number.isNaN(x)) return nan;
  const sign = x < 0 || Object.is(x, -0) ? signBit : 0;
  const size = Math.abs(x);
  if (size >= magnitude(layout, layout.largestCode)) return sign | layout.largestCode;
  // Codes rise with magnitudes: find the step of this magnitude's binade and round the multiple of it.
  const exponent = Math.max(Math.floor(Math.log2(size === 0 ? Number.MIN_VALUE : size)), 1 - layout.bias);
  const step = 2 ** (exponent - layout.mantissaBits);
  const steps = roundHalfEven(size / step);
  // steps counts from 0 in the subnormal binade, from 2^mantissaBits in the others; carrying into the next binade is right.
  const code = steps + (exponent - (1 - layout.bias)) * 2 ** layout.mantissaBits;
  return sign | Math.min(code, layout.largestCode);
}

function roundHalfEven(x: number): number {
  const floor = Math.floor(x);
  const rest = x - floor;
  if (rest !== 0.5) return rest < 0.5 ? floor : floor + 1;
  return floor % 2 === 0 ? floor : floor + 1;
}

const bits = new Uint32Array(1);
const asFloat = new Float32Array(bits.buffer);

/** BF16 bits of a float32; a NaN stays one. */
export function encodeBf16(x: number): number {
  asFloat[0] = x;
  const word = bits[0]!;
  if (Number.isNaN(x)) return ((word >>> 16) | 0x40) & 0xffff;
  return ((word + 0x7fff + ((word >>> 16) & 1)) >>> 16) & 0xffff;
}

/** BF16 values to float32: each is the upper half of one. */
export function decodeBf16(codes: Uint16Array, into: Float32Array): void {
  const words = new Uint32Array(into.buffer, into.byteOffset, into.length);
  for (let i = 0; i < codes.length; i++) words[i] = codes[i]! << 16;
}

/** F16 values to float32. */
export function decodeF16(codes: Uint16Array, into: Float32Array): void {
  for (let i = 0; i < codes.length; i++) into[i] = f16Value(codes[i]!);
}

function f16Value(code: number): number {
  const exponent = (code >> 10) & 31;
  const fraction = (code & 1023) / 1024;
  const sign = code & 0x8000 ? -1 : 1;
  if (exponent === 31) return fraction === 0 ? sign * Number.POSITIVE_INFINITY : Number.NaN;
  return sign * (exponent === 0 ? fraction * 2 ** -14 : (1 + fraction) * 2 ** (exponent - 15));
}

/** F16 bits of a float32; beyond 65504 + half a step it is infinity. */
export function encodeF16(x: number): number {
  if (Number.isNaN(x)) return 0x7e00;
  const sign = x < 0 || Object.is(x, -0) ? 0x8000 : 0;
  const size = Math.abs(x);
  if (size >= 65520) return sign | 0x7c00;
  const exponent = Math.max(Math.floor(Math.log2(size === 0 ? Number.MIN_VALUE : size)), -14);
  return sign | (roundHalfEven(size / 2 ** (exponent - 10)) + (exponent + 14) * 1024);
}
