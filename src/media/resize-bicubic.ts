/**
 * Bicubic resampling of bytes as Pillow 11 does it (ImageOps and Image.resize; antialiased): first the widths, then the heights,
 * each rounded to bytes, each only if it changes. Output i of n out of L inputs is the sum of the inputs within 2 * f of
 * (i + 0.5) * L / n, f = max(L / n, 1), weighted by Keys' kernel with a = -0.5, in 22 bits of fixed point. Every byte is that
 * of Pillow; float arithmetic would differ by one here and there.
 */
import type { Pixels } from "./pixels.ts";

const fractionBits = 22;
const half = 1 << (fractionBits - 1);

export function resizeBicubic(image: Pixels, width: number, height: number): Pixels {
  const wide = image.width === width ? image : resizeWidth(image, width);
  return wide.height === height ? wide : resizeHeight(wide, height);
}

/** For every output: its first input, and `taps` weights (0 where it has fewer). */
interface Windows {
  readonly taps: number;
  readonly first: Int32Array;
  readonly count: Int32Array;
  readonly weights: Int32Array;
}

function resizeWidth({ width: before, height, data }: Pixels, width: number): Pixels {
  const { taps, first, count, weights } = windowsOf(before, width);
  const resized = new Uint8Array(3 * width * height);
  for (let y = 0, to = 0; y < height; y++) {
    for (let x = 0; x < width; x++, to += 3) {
      let red = half;
      let green = half;
      let blue = half;
      const end = x * taps + count[x]!;
      for (let tap = x * taps, from = 3 * (y * before + first[x]!); tap < end; tap++, from += 3) {
        const weight = weights[tap]!;
        red = (red + weight * data[from]!) | 0;
        green = (green + weight * data[from + 1]!) | 0;
        blue = (blue + weight * data[from + 2]!) | 0;
      }
      resized[to] = toByte(red);
      resized[to + 1] = toByte(green);
      resized[to + 2] = toByte(blue);
    }
  }
  return { width, height, data: resized };
}

function resizeHeight({ width, height: before, data }: Pixels, height: number): Pixels {
  const { taps, first, count, weights } = windowsOf(before, height);
  const row = 3 * width;
  const resized = new Uint8Array(row * height);
  const sums = new Int32Array(row);
  for (let y = 0; y < height; y++) {
    sums.fill(half);
    for (let tap = 0; tap < count[y]!; tap++) {
      const weight = weights[y * taps + tap]!;
      for (let i = 0, from = (first[y]! + tap) * row; i < row; i++, from++) {
        sums[i] = (sums[i]! + weight * data[from]!) | 0;
      }
    }
    for (let i = 0, to = y * row; i < row; i++, to++) resized[to] = toByte(sums[i]!);
  }
  return { width, height, data: resized };
}

function toByte(sum: number): number {
  const value = sum >> fractionBits;
  return Math.min(Math.max(value, 0), 255);
}

function windowsOf(inputs: number, outputs: number): Windows {
  const scale = inputs / outputs;
  const stretch = Math.max(scale, 1);
  const reach = 2 * stretch;
  const taps = Math.ceil(reach) * 2 + 1;
  const [first, count] = [new Int32Array(outputs), new Int32Array(outputs)];
  const weights = new Int32Array(outputs * taps);
  for (let i = 0; i < outputs; i++) {
    const centre = (i + 0.5) * scale;
    const begin = Math.max(Math.trunc(centre - reach + 0.5), 0);
    const end = Math.min(Math.trunc(centre + reach + 0.5), inputs);
    const exact = Array.from({ length: end - begin }, (_, k) => bicubic((begin + k - centre + 0.5) * (1 / stretch)));
    const sum = exact.reduce((total, weight) => total + weight, 0);
    first[i] = begin;
    count[i] = end - begin;
    for (const [k, weight] of exact.entries()) weights[i * taps + k] = roundAway((weight / sum) * 2 ** fractionBits);
  }
  return { taps, first, count, weights };
}

const roundAway = (x: number) => Math.trunc(x < 0 ? x - 0.5 : x + 0.5);

/** Keys 1981, with a = -0.5. */
function bicubic(offset: number): number {
  const a = -0.5;
  const x = Math.abs(offset);
  if (x < 1) return ((a + 2) * x - (a + 3)) * x * x + 1;
  return x < 2 ? (((x - 5) * x + 8) * x - 4) * a : 0;
}
