/**
 * EXIF orientation: how a picture is to be turned before it is shown (tag 0x0112 of the first directory; TIFF 6.0, EXIF 2.3)
 *   1 as stored, 2 mirrored, 3 half a turn, 4 upside down mirrored, 5 transposed, 6 a quarter clockwise, 7 transversed,
 *   8 a quarter counter-clockwise
 * Metadata that makes no sense is no reason to refuse a picture: it counts as 1.
 */
import type { Pixels } from "./pixels.ts";

export type Orientation = 1 | 2 | 3 | 4 | 5 | 6 | 7 | 8;

const orientationTag = 0x0112;
const shortType = 3;

/** `tiff`: the bytes of an EXIF block, with or without "Exif\0\0" in front. */
export function exifOrientation(exif: Uint8Array): Orientation {
  const hasPrefix = exif[0] === 0x45 && exif[1] === 0x78; // "Ex"
  const tiff = hasPrefix ? exif.subarray(6) : exif;
  const isLittle = tiff[0] === 0x49 && tiff[1] === 0x49;
  if (tiff.length < 14 || (!isLittle && !(tiff[0] === 0x4d && tiff[1] === 0x4d))) return 1;
  const view = new DataView(tiff.buffer, tiff.byteOffset, tiff.byteLength);
  if (view.getUint16(2, isLittle) !== 42) return 1;
  const directory = view.getUint32(4, isLittle);
  if (directory + 2 > tiff.length) return 1;
  const entries = view.getUint16(directory, isLittle);
  for (let i = 0, at = directory + 2; i < entries && at + 12 <= tiff.length; i++, at += 12) {
    if (view.getUint16(at, isLittle) !== orientationTag) continue;
    const value = view.getUint16(at + 8, isLittle);
    return view.getUint16(at + 2, isLittle) === shortType && value >= 1 && value <= 8 ? (value as Orientation) : 1;
  }
  return 1;
}

/** Whether the orientation exchanges width and height. */
export function isQuarterTurn(orientation: Orientation): boolean {
  return orientation >= 5;
}

/** The picture as it is to be shown. */
export function oriented({ width, height, data }: Pixels, orientation: Orientation): Pixels {
  if (orientation === 1) return { width, height, data };
  const [w, h] = isQuarterTurn(orientation) ? [height, width] : [width, height];
  const turned = new Uint8Array(data.length);
  const { origin, right, down } = steps(orientation, width, height);
  for (let y = 0, to = 0; y < h; y++) {
    for (let x = 0, from = origin + y * down; x < w; x++, from += right, to += 3) {
      turned[to] = data[from]!;
      turned[to + 1] = data[from + 1]!;
      turned[to + 2] = data[from + 2]!;
    }
  }
  return { width: w, height: h, data: turned };
}

/** Where in the stored bytes the shown picture begins, and how far a step to the right and a step down lead. */
function steps(orientation: Orientation, width: number, height: number) {
  const row = 3 * width;
  const lastRow = row * (height - 1);
  const lastColumn = row - 3;
  switch (orientation) {
    case 1:
      return { origin: 0, right: 3, down: row };
    case 2:
      return { origin: lastColumn, right: -3, down: row };
    case 3:
      return { origin: lastRow + lastColumn, right: -3, down: -row };
    case 4:
      return { origin: lastRow, right: 3, down: -row };
    case 5:
      return { origin: 0, right: row, down: 3 };
    case 6:
      return { origin: lastRow, right: -row, down: 3 };
    case 7:
      return { origin: lastRow + lastColumn, right: -row, down: -3 };
    case 8:
      return { origin: lastColumn, right: row, down: -3 };
    default:
      return orientation satisfies never;
  }
}
