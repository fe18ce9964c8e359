/**
 * What the tower reads of one image: its pixels as patches and three tables of integers that follow from the grid alone
 *   patches [tokens, 3 * patchSize^2], positions [tokens, 2] (row, column), members [cells, downsampleRatio^2], layout [span]
 */
import { ShapeError } from "../../errors.ts";
import type { VisionConfig } from "./config.ts";
import type { ImagePlan } from "./image-plan.ts";

export interface ImageInputs {
  /** Patches, cells, and positions in the text. */
  readonly sizes: Readonly<Record<"tokens" | "cells" | "span", number>>;
  readonly inputs: {
    readonly patches: Float32Array;
    readonly positions: Int32Array;
    readonly members: Int32Array;
    readonly layout: Int32Array;
  };
}

/** Marks in a layout, beside the numbers of cells: the rows of `image_start`, `image_newline` and `image_end`. */
export const imageMarks = { start: -1, newline: -2, end: -3 } as const;

/** `pixels`: [height, width, 3], of the size in the plan. */
export function imageInputs(config: VisionConfig, plan: ImagePlan, pixels: Uint8Array): ImageInputs {
  const { patchRows, patchColumns, rows, columns, tokens: span } = plan;
  return {
    sizes: { tokens: patchRows * patchColumns, cells: rows * columns, span },
    inputs: {
      patches: patchesOf(plan, config.patchSize, pixels),
      positions: Int32Array.from({ length: 2 * patchRows * patchColumns }, (_, i) => {
        const patch = i >> 1;
        return i % 2 === 0 ? Math.floor(patch / patchColumns) : patch % patchColumns;
      }),
      members: membersOf(plan, config.downsampleRatio),
      layout: layoutOf(plan),
    },
  };
}

/** Bytes to [-1, 1]: (x / 255 - 0.5) / 0.5, rounded to float32 at each step as the processor's arrays are. */
const levels = Float32Array.from({ length: 256 }, (_, x) => Math.fround(Math.fround(x / 255) - 0.5) / 0.5);

/** Patches row by row, each channel by channel: [patches, 3, patchSize, patchSize]. */
export function patchesOf(
  { width, height, patchColumns, patchRows }: ImagePlan,
  size: number,
  pixels: Uint8Array,
): Float32Array {
  if (pixels.length !== 3 * width * height) {
    throw new ShapeError(
      `The image has ${pixels.length} bytes, the plan of ${width} x ${height} pixels ${3 * width * height}`,
    );
  }
  const patches = new Float32Array(3 * width * height);
  let to = 0;
  for (let row = 0; row < patchRows; row++) {
    for (let column = 0; column < patchColumns; column++) {
      for (let channel = 0; channel < 3; channel++) {
        for (let y = 0; y < size; y++) {
          const from = 3 * ((row * size + y) * width + column * size) + channel;
          for (let x = 0; x < size; x++) patches[to++] = levels[pixels[from + 3 * x]!]!;
        }
      }
    }
  }
  return patches;
}

/** The patches of each cell, row by row; -1 where the grid ends. */
function membersOf({ patchRows, patchColumns, rows, columns }: ImagePlan, ratio: number): Int32Array {
  const members = new Int32Array(rows * columns * ratio * ratio);
  let to = 0;
  for (let row = 0; row < rows; row++) {
    for (let column = 0; column < columns; column++) {
      for (let y = row * ratio; y < (row + 1) * ratio; y++) {
        for (let x = column * ratio; x < (column + 1) * ratio; x++) {
          members[to++] = y < patchRows && x < patchColumns ? y * patchColumns + x : -1;
        }
      }
    }
  }
  return members;
}

function layoutOf({ rows, columns }: ImagePlan): Int32Array {
  const layout: number[] = [imageMarks.start];
  for (let row = 0; row < rows; row++) {
    for (let column = 0; column < columns; column++) layout.push(row * columns + column);
    layout.push(imageMarks.newline);
  }
  return Int32Array.from([...layout, imageMarks.end]);
}
