/**
 * Super-blocks of 256 elements: a half-precision scale for the block and small scales for its sub-blocks of 16 or 32. Element i
 * has half = i >> 7, t = (i >> 5) & 3, l = i & 31. Every written operation rounds to float32 once, in the written order.
 */
import { iq4Values } from "./ggml-blocks.ts";
import { halfAt } from "./half.ts";

const { fround } = Math;

function each(bytes: Uint8Array, blockBytes: number, block: (at: number, to: number) => void): void {
  for (let at = 0, to = 0; at + blockBytes <= bytes.length; at += blockBytes, to += 256) block(at, to);
}

const signed = (byte: number) => (byte << 24) >> 24;
/** Two bits of a byte that holds elements l of the four quarters of a half. */
const twoBits = (bytes: Uint8Array, codes: number, i: number) =>
  (bytes[codes + 32 * (i >> 7) + (i & 31)]! >> (2 * ((i >> 5) & 3))) & 3;
/** A nibble of 4-bit codes in groups of 64: the low nibbles are the first 32, the high ones the others. */
const nibble64 = (bytes: Uint8Array, codes: number, i: number) =>
  (bytes[codes + 32 * (i >> 6) + (i & 31)]! >> ((i >> 5) & 1 ? 4 : 0)) & 15;

export function decodeQ2_K(bytes: Uint8Array, into: Float32Array): void {
  each(bytes, 84, (at, to) => {
    const [d, min] = [halfAt(bytes, at + 80), halfAt(bytes, at + 82)];
    for (let i = 0; i < 256; i++) {
      const s = bytes[at + (i >> 4)]!;
      into[to + i] = fround(fround(d * (s & 15)) * twoBits(bytes, at + 16, i)) - fround(min * (s >> 4));
    }
  });
}

export function decodeQ3_K(bytes: Uint8Array, into: Float32Array): void {
  each(bytes, 110, (at, to) => {
    const d = halfAt(bytes, at + 108);
    for (let i = 0; i < 256; i++) {
      const [g16, g32] = [i >> 4, i >> 5];
      const high = (bytes[at + (i & 31)]! >> g32) & 1;
      const low = (bytes[at + 96 + (g16 & 7)]! >> (g16 & 8 ? 4 : 0)) & 15;
      const top = (bytes[at + 104 + (g16 & 3)]! >> (2 * (g16 >> 2))) & 3;
      into[to + i] = fround(d * ((low | (top << 4)) - 32)) * (twoBits(bytes, at + 32, i) - (high ? 0 : 4));
    }
  });
}

/** Six-bit scale and minimum of sub-block g out of twelve bytes. */
function scaleAndMin(bytes: Uint8Array, s: number, g: number): [number, number] {
  if (g < 4) return [bytes[s + g]! & 63, bytes[s + g + 4]! & 63];
  return [
    (bytes[s + g + 4]! & 15) | ((bytes[s + g - 4]! >> 6) << 4),
    (bytes[s + g + 4]! >> 4) | ((bytes[s + g]! >> 6) << 4),
  ];
}

export function decodeQ4_K(bytes: Uint8Array, into: Float32Array): void {
  each(bytes, 144, (at, to) => {
    const [d, min] = [halfAt(bytes, at), halfAt(bytes, at + 2)];
    for (let g = 0; g < 8; g++) {
      const [scale, offset] = scaleAndMin(bytes, at + 4, g);
      const [step, base] = [fround(d * scale), fround(min * offset)];
      for (let i = 32 * g; i < 32 * g + 32; i++) into[to + i] = fround(step * nibble64(bytes, at + 16, i)) - base;
    }
  });
}

export function decodeQ5_K(bytes: Uint8Array, into: Float32Array): void {
  each(bytes, 176, (at, to) => {
    const [d, min] = [halfAt(bytes, at), halfAt(bytes, at + 2)];
    for (let g = 0; g < 8; g++) {
      const [scale, offset] = scaleAndMin(bytes, at + 4, g);
      const [step, base] = [fround(d * scale), fround(min * offset)];
      for (let i = 32 * g; i < 32 * g + 32; i++) {
        const high = ((bytes[at + 16 + (i & 31)]! >> g) & 1) << 4;
        into[to + i] = fround(step * (nibble64(bytes, at + 48, i) | high)) - base;
      }
    }
  });
}

export function decodeQ6_K(bytes: Uint8Array, into: Float32Array): void {
  each(bytes, 210, (at, to) => {
    const d = halfAt(bytes, at + 208);
    for (let i = 0; i < 256; i++) {
      const r = i & 127;
      const low = (bytes[at + 64 * (i >> 7) + (r & 63)]! >> (r >> 6 ? 4 : 0)) & 15;
      const code = low | (twoBits(bytes, at + 128, i) << 4);
      into[to + i] = fround(d * signed(bytes[at + 192 + (i >> 4)]!)) * (code - 32);
    }
  });
}

export function decodeIq4Xs(bytes: Uint8Array, into: Float32Array): void {
  each(bytes, 136, (at, to) => {
    const d = halfAt(bytes, at);
    const high = bytes[at + 2]! | (bytes[at + 3]! << 8);
    for (let i = 0; i < 256; i++) {
      const g = i >> 5;
      const low = (bytes[at + 4 + (g >> 1)]! >> (g & 1 ? 4 : 0)) & 15;
      const scale = (low | (((high >> (2 * g)) & 3) << 4)) - 32;
      const code = (bytes[at + 8 + 16 * g + (i & 15)]! >> ((i >> 4) & 1 ? 4 : 0)) & 15;
      into[to + i] = fround(d * scale) * iq4Values[code]!;
    }
  });
}

/** Ternary, five digits a byte: digit p of byte v is ((v * 3^p mod 256) * 3) >> 8. */
export function decodeTq1(bytes: Uint8Array, into: Float32Array): void {
  const powers = [1, 3, 9, 27, 81];
  each(bytes, 54, (at, to) => {
    const d = halfAt(bytes, at + 52);
    const put = (byte: number, p: number, element: number) => {
      into[to + element] = d * (((((bytes[at + byte]! * powers[p]!) & 255) * 3) >> 8) - 1);
    };
    for (let p = 0; p < 5; p++) {
      for (let m = 0; m < 32; m++) put(m, p, 32 * p + m);
      for (let m = 0; m < 16; m++) put(32 + m, p, 160 + 16 * p + m);
    }
    for (let p = 0; p < 4; p++) for (let m = 0; m < 4; m++) put(48 + m, p, 240 + 4 * p + m);
  });
}

export function decodeTq2(bytes: Uint8Array, into: Float32Array): void {
  each(bytes, 66, (at, to) => {
    const d = halfAt(bytes, at + 64);
    for (let i = 0; i < 256; i++) into[to + i] = d * (twoBits(bytes, at, i) - 1);
  });
}
