/**
 * Random bytes of a weight in a block format: codes are uniform, scales such that values spread like those of a trained matrix
 * (1 / sqrt(columns)). Fast rather than Gaussian: what such weights are for is timing.
 */
import { encodeBf16, encodeF16 } from "../quant/number-codes.ts";

export class RandomBytes {
  #state: number;

  constructor(seed: number) {
    this.#state = seed >>> 0 || 1;
  }

  /** Fills with uniform bytes (xorshift32, Marsaglia 2003). `into` has a multiple of four bytes or a rest that stays as it is. */
  fill(into: Uint8Array): void {
    const words = new Uint32Array(into.buffer, into.byteOffset, into.length >> 2);
    let x = this.#state;
    for (let i = 0; i < words.length; i++) {
      x ^= x << 13;
      x ^= x >>> 17;
      x ^= x << 5;
      words[i] = x;
    }
    this.#state = x;
  }

  /** A uniform number in [-1, 1). */
  next(): number {
    const word = new Uint8Array(4);
    this.fill(word);
    return new DataView(word.buffer).getInt32(0, true) / 2 ** 31;
  }
}

/** Standard deviation of the values of uniform codes, in units of the block's scale. */
const spreadOfCodes = { Q8_0: 73.9, Q4_0: 4.61, MXFP4: 2.93 };

export type RandomType = "F32" | "F16" | "BF16" | keyof typeof spreadOfCodes;

/** Whole blocks of random values with a standard deviation of about `spread`. */
export function fillRandom(type: RandomType, into: Uint8Array, spread: number, random: RandomBytes): void {
  switch (type) {
    case "F32": {
      random.fill(into);
      const words = new Int32Array(into.buffer, into.byteOffset, into.length / 4);
      const values = new Float32Array(into.buffer, into.byteOffset, into.length / 4);
      for (let i = 0; i < words.length; i++) values[i] = (words[i]! / 2 ** 31) * Math.sqrt(3) * spread;
      break;
    }
    case "F16": {
      random.fill(into);
      const codes = new Uint16Array(into.buffer, into.byteOffset, into.length / 2);
      // One of 65,536 steps of the range each, by table.
      const steps = Uint16Array.from({ length: 65_536 }, (_, i) => encodeF16((i / 32_768 - 1) * Math.sqrt(3) * spread));
      for (let i = 0; i < codes.length; i++) codes[i] = steps[codes[i]!]!;
      break;
    }
    case "BF16": {
      random.fill(into);
      const codes = new Uint16Array(into.buffer, into.byteOffset, into.length / 2);
      const steps = Uint16Array.from({ length: 65_536 }, (_, i) =>
        encodeBf16((i / 32_768 - 1) * Math.sqrt(3) * spread),
      );
      for (let i = 0; i < codes.length; i++) codes[i] = steps[codes[i]!]!;
      break;
    }
    case "MXFP4": {
      random.fill(into);
      const exponent = Math.round(Math.log2(spread / spreadOfCodes.MXFP4)) + 127;
      for (let at = 0; at < into.length; at += 17) into[at] = exponent;
      break;
    }
    default: {
      random.fill(into);
      const blockBytes = type === "Q8_0" ? 34 : 18;
      const scale = encodeF16(spread / spreadOfCodes[type]);
      for (let at = 0; at < into.length; at += blockBytes) {
        into[at] = scale & 255;
        into[at + 1] = scale >> 8;
      }
    }
  }
}
