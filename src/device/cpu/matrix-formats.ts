/** The formats in which kernels read weights in place; the order is that of `enum Format` in kernels/matrix.h. */
export const matrixFormats = ["F32", "F16", "BF16", "FP8", "Q8_0", "Q4_0", "Q4_K", "Q6_K", "MXFP4", "FP4"] as const;
export type MatrixFormat = (typeof matrixFormats)[number];

/** Columns and bytes of a block, along a row. FP8 and FP4 have their scales apart. */
const blocks: Readonly<Record<MatrixFormat, readonly [columns: number, bytes: number]>> = {
  F32: [1, 4],
  F16: [1, 2],
  BF16: [1, 2],
  FP8: [1, 1],
  Q8_0: [32, 34],
  Q4_0: [32, 18],
  Q4_K: [256, 144],
  Q6_K: [256, 210],
  MXFP4: [32, 17],
  FP4: [32, 16],
};

export function isMatrixFormat(name: string): name is MatrixFormat {
  return (matrixFormats as readonly string[]).includes(name);
}

export function bytesOfRow(format: MatrixFormat, columns: number): number {
  const [size, bytes] = blocks[format];
  return (columns / size) * bytes;
}

/** Whether products with this format may be made with activations in int8 blocks of 32. */
export function hasBlocks(format: MatrixFormat): boolean {
  return blocks[format][0] > 1;
}
