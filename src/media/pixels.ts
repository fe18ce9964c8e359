/** Decoded pixels: rows from top to bottom, three bytes a pixel (red, green, blue). */
export interface Pixels {
  readonly width: number;
  readonly height: number;
  /** [height, width, 3] */
  readonly data: Uint8Array;
}

/** Red, green and blue of [pixels, 4]; the fourth byte (alpha) is dropped, as Pillow's convert("RGB") does. */
export function withoutAlpha(width: number, height: number, rgba: Uint8Array | Uint8ClampedArray): Pixels {
  const data = new Uint8Array(width * height * 3);
  for (let from = 0, to = 0; to < data.length; from += 4, to += 3) {
    data[to] = rgba[from]!;
    data[to + 1] = rgba[from + 1]!;
    data[to + 2] = rgba[from + 2]!;
  }
  return { width, height, data };
}
