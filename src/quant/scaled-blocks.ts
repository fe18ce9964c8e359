/**
 * Matrices of small codes with a scale for each block: DeepSeek's FP8 (E4M3, tiles of 128x128 or 32x32, or 1x32) and FP4
 * (E2M1, two codes a byte, 32 neighbours of a row). value = code * scale, one float32 multiplication; the scale multiplies
 * even where it is called "inverse". Blocks at the right and lower edge are cut off, not padded.
 */
import { FormatError } from "../errors.ts";
import { e2m1Values, e4m3Values, e8m0Values } from "./number-codes.ts";

export interface BlockGrid {
  readonly rows: number;
  readonly columns: number;
  readonly blockRows: number;
  readonly blockColumns: number;
}

/** Rows and columns of the matrix of scales. */
export function scaleShape({ rows, columns, blockRows, blockColumns }: BlockGrid): [number, number] {
  return [Math.ceil(rows / blockRows), Math.ceil(columns / blockColumns)];
}

/** Throws a FormatError when an E8M0 byte is 255, which is not a number and no scale. */
export function requireE8m0Scales(codes: Uint8Array): void {
  const at = codes.indexOf(255);
  if (at >= 0) throw new FormatError(`The scale ${at} is 255, which is not a number`, { code: "bad-scale" });
}

/** E8M0 bytes to float32. */
export function decodeE8m0Scales(codes: Uint8Array): Float32Array {
  requireE8m0Scales(codes);
  return Float32Array.from(codes, (code) => e8m0Values[code]!);
}

/** E4M3 codes [rows, columns] with scales [ceil(rows / blockRows), ceil(columns / blockColumns)]. */
export function decodeE4m3Blocks(codes: Uint8Array, scales: Float32Array, grid: BlockGrid, into: Float32Array): void {
  const { rows, columns, blockRows, blockColumns } = grid;
  const [, scaleColumns] = scaleShape(grid);
  for (let r = 0; r < rows; r++) {
    const scaleRow = Math.floor(r / blockRows) * scaleColumns;
    for (let block = 0; block < scaleColumns; block++) {
      const scale = scales[scaleRow + block]!;
      const end = r * columns + Math.min(columns, (block + 1) * blockColumns);
      for (let i = r * columns + block * blockColumns; i < end; i++) into[i] = e4m3Values[codes[i]!]! * scale;
    }
  }
}

export const fp4BlockColumns = 32;

/** E2M1 codes, two a byte, the even column in the low nibble: [rows, columns / 2] bytes with scales [rows, columns / 32]. */
export function decodeE2m1Rows(bytes: Uint8Array, scales: Float32Array, into: Float32Array): void {
  const bytesPerBlock = fp4BlockColumns / 2;
  for (let block = 0; block < scales.length; block++) {
    const scale = scales[block]!;
    for (let i = block * bytesPerBlock; i < (block + 1) * bytesPerBlock; i++) {
      into[2 * i] = e2m1Values[bytes[i]! & 15]! * scale;
      into[2 * i + 1] = e2m1Values[bytes[i]! >> 4]! * scale;
    }
  }
}
