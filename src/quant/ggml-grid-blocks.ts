/**
 * Super-blocks whose codes are rows of a codebook: IQ2_XXS (eight magnitudes a byte) and IQ3_XXS (four). Signs of eight elements
 * come from seven bits; the eighth makes their number even. The other codebook types of ggml (IQ1, IQ2_XS, IQ2_S, IQ3_S) are
 * not read.
 */
import { iq2XxsGrid, iq3XxsGrid } from "./ggml-grids.generated.ts";
import { halfAt } from "./half.ts";

const { fround } = Math;

const wordAt = (bytes: Uint8Array, at: number) =>
  (bytes[at]! | (bytes[at + 1]! << 8) | (bytes[at + 2]! << 16) | (bytes[at + 3]! << 24)) >>> 0;

/** Sign bits of eight elements: seven from the word, and their parity. */
function signsOf(word: number, k: number): number {
  const seven = (word >>> (7 * k)) & 127;
  let parity = seven ^ (seven >> 4);
  parity ^= parity >> 2;
  parity ^= parity >> 1;
  return seven | ((parity & 1) << 7);
}

export function decodeIq2Xxs(bytes: Uint8Array, into: Float32Array): void {
  for (let at = 0, to = 0; at + 66 <= bytes.length; at += 66, to += 256) {
    const d = halfAt(bytes, at);
    for (let g = 0; g < 8; g++) {
      const word = wordAt(bytes, at + 6 + 8 * g);
      const scale = fround(fround(d * (0.5 + (word >>> 28))) * 0.25);
      for (let k = 0; k < 4; k++) {
        const row = 8 * bytes[at + 2 + 8 * g + k]!;
        const signs = signsOf(word, k);
        for (let j = 0; j < 8; j++) {
          const value = fround(scale * iq2XxsGrid[row + j]!);
          into[to + 32 * g + 8 * k + j] = (signs >> j) & 1 ? -value : value;
        }
      }
    }
  }
}

export function decodeIq3Xxs(bytes: Uint8Array, into: Float32Array): void {
  for (let at = 0, to = 0; at + 98 <= bytes.length; at += 98, to += 256) {
    const d = halfAt(bytes, at);
    for (let g = 0; g < 8; g++) {
      const word = wordAt(bytes, at + 66 + 4 * g);
      const scale = fround(fround(d * (0.5 + (word >>> 28))) * 0.5);
      for (let l = 0; l < 32; l++) {
        const value = fround(scale * iq3XxsGrid[4 * bytes[at + 2 + 8 * g + (l >> 2)]! + (l & 3)]!);
        into[to + 32 * g + l] = (signsOf(word, l >> 3) >> (l & 7)) & 1 ? -value : value;
      }
    }
  }
}
