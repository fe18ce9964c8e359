/**
 * Blocks of 32 to 128 elements with one scale. In the half-split layouts byte j of the codes holds element j in its low nibble
 * and element j + 16 in its high one. Every written operation rounds to float32 once, in the written order.
 */

import { halfAt } from "./half.ts";
import { e4m3Values } from "./number-codes.ts";

const { fround } = Math;

/** Calls `block(byte, element)` for each block. */
function each(bytes: Uint8Array, blockBytes: number, elements: number, block: (at: number, to: number) => void): void {
  for (let at = 0, to = 0; at + blockBytes <= bytes.length; at += blockBytes, to += elements) block(at, to);
}

/** The nibble of element i in half-split codes that begin at byte `codes`. */
const nibble = (bytes: Uint8Array, codes: number, i: number) => (bytes[codes + (i & 15)]! >> (i & 16 ? 4 : 0)) & 15;

/** The fifth bits of a Q5 block. */
const highBit = (bytes: Uint8Array, at: number, i: number) => ((bytes[at + (i >> 3)]! >> (i & 7)) & 1) << 4;

export function decodeQ4_0(bytes: Uint8Array, into: Float32Array): void {
  each(bytes, 18, 32, (at, to) => {
    const d = halfAt(bytes, at);
    for (let i = 0; i < 32; i++) into[to + i] = d * (nibble(bytes, at + 2, i) - 8);
  });
}

export function decodeQ4_1(bytes: Uint8Array, into: Float32Array): void {
  each(bytes, 20, 32, (at, to) => {
    const [d, m] = [halfAt(bytes, at), halfAt(bytes, at + 2)];
    for (let i = 0; i < 32; i++) into[to + i] = fround(d * nibble(bytes, at + 4, i)) + m;
  });
}

export function decodeQ5_0(bytes: Uint8Array, into: Float32Array): void {
  each(bytes, 22, 32, (at, to) => {
    const d = halfAt(bytes, at);
    for (let i = 0; i < 32; i++) into[to + i] = d * ((nibble(bytes, at + 6, i) | highBit(bytes, at + 2, i)) - 16);
  });
}

export function decodeQ5_1(bytes: Uint8Array, into: Float32Array): void {
  each(bytes, 24, 32, (at, to) => {
    const [d, m] = [halfAt(bytes, at), halfAt(bytes, at + 2)];
    for (let i = 0; i < 32; i++) into[to + i] = fround(d * (nibble(bytes, at + 8, i) | highBit(bytes, at + 4, i))) + m;
  });
}

export function decodeQ8_0(bytes: Uint8Array, into: Float32Array): void {
  each(bytes, 34, 32, (at, to) => {
    const d = halfAt(bytes, at);
    for (let i = 0; i < 32; i++) into[to + i] = d * ((bytes[at + 2 + i]! << 24) >> 24);
  });
}

/** The values of IQ4_NL and IQ4_XS codes. */
export const iq4Values = Int8Array.of(-127, -104, -83, -65, -49, -35, -22, -10, 1, 13, 25, 38, 53, 69, 89, 113);

export function decodeIq4Nl(bytes: Uint8Array, into: Float32Array): void {
  each(bytes, 18, 32, (at, to) => {
    const d = halfAt(bytes, at);
    for (let i = 0; i < 32; i++) into[to + i] = d * iq4Values[nibble(bytes, at + 2, i)]!;
  });
}

/** Twice the E2M1 values, so that they are integers. */
const doubledE2m1 = Int8Array.of(0, 1, 2, 3, 4, 6, 8, 12, 0, -1, -2, -3, -4, -6, -8, -12);

/** value = E2M1 * 2^(e - 127); the exponent 255 is a number here. */
export function decodeMxfp4(bytes: Uint8Array, into: Float32Array): void {
  each(bytes, 17, 32, (at, to) => {
    const scale = 2 ** (bytes[at]! - 128);
    for (let i = 0; i < 32; i++) into[to + i] = scale * doubledE2m1[nibble(bytes, at + 1, i)]!;
  });
}

/** Four scales in E4M3 without sign (0x7f is 0) for 16 elements each; a byte holds elements r and r + 8 of its sixteen. */
export function decodeNvfp4(bytes: Uint8Array, into: Float32Array): void {
  each(bytes, 36, 64, (at, to) => {
    for (let i = 0; i < 64; i++) {
      const [k, r] = [i >> 4, i & 15];
      const code = bytes[at + k]! & 0x7f;
      const scale = 0.5 * (code === 0x7f ? 0 : e4m3Values[code]!);
      into[to + i] = scale * doubledE2m1[(bytes[at + 4 + 8 * k + (r & 7)]! >> (r & 8 ? 4 : 0)) & 15]!;
    }
  });
}

export function decodeQ1_0(bytes: Uint8Array, into: Float32Array): void {
  each(bytes, 18, 128, (at, to) => {
    const d = halfAt(bytes, at);
    for (let i = 0; i < 128; i++) into[to + i] = (bytes[at + 2 + (i >> 3)]! >> (i & 7)) & 1 ? d : -d;
  });
}

export function decodeQ2_0(bytes: Uint8Array, into: Float32Array): void {
  each(bytes, 18, 64, (at, to) => {
    const d = halfAt(bytes, at);
    for (let i = 0; i < 64; i++) into[to + i] = d * (((bytes[at + 2 + (i >> 2)]! >> (2 * (i & 3))) & 3) - 1);
  });
}
