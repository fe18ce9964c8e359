/**
 * How large an image becomes and how many tokens it takes: patches of `patchSize` pixels, cells of `downsampleRatio` patches
 * a side, one token a cell, one for each line's end, one for start and one for end. Images are scaled up to a least number of
 * pixels and down to a greatest number of tokens. The order of the roundings is that of the published processor: each decides
 * about sizes at its border.
 */
import { MediaError } from "../../errors.ts";
import type { VisionConfig } from "./config.ts";

export type ImagePlanOptions = Pick<
  VisionConfig,
  "patchSize" | "downsampleRatio" | "maxImageTokens" | "minPixels" | "maxAspectRatio"
>;

/** What DeepSeek-V4.1 was published with. */
export const releasedImagePlan: ImagePlanOptions = {
  patchSize: 14,
  downsampleRatio: 3,
  maxImageTokens: 1024,
  minPixels: 295_936,
  maxAspectRatio: undefined,
};

export interface ImagePlan {
  /** Pixels that the image is fitted into: multiples of the patch size. */
  readonly width: number;
  readonly height: number;
  /** With its proportions kept and padded, or stretched (very wide images of models that bound the proportions). */
  readonly mode: "pad" | "stretch";
  readonly patchRows: number;
  readonly patchColumns: number;
  /** Cells. */
  readonly rows: number;
  readonly columns: number;
  /** Positions in the text: rows * (columns + 1) + 2. */
  readonly tokens: number;
}

export function planImage(imageWidth: number, imageHeight: number, options: ImagePlanOptions): ImagePlan {
  const { patchSize, downsampleRatio, maxImageTokens: most } = options;
  const [w, h] = wantedSize(imageWidth, imageHeight, options);
  const isStretched = options.maxAspectRatio !== undefined && imageWidth >= options.maxAspectRatio * imageHeight;
  const plan = (width: number, height: number) => planOf(width, height, isStretched ? "stretch" : "pad", options);
  const upToPatch = (side: number) => Math.ceil(side / patchSize) * patchSize;
  const whole = plan(upToPatch(w), upToPatch(h));
  if (whole.tokens <= most) return whole;

  const cell = patchSize * downsampleRatio;
  const ratio = h / w;
  const mostColumns = Math.sqrt((most - 2) / ratio + 0.25) - 0.5;
  const mostRows = mostColumns * ratio;
  if (mostColumns < 1) return plan(cell, Math.floor((most - 2) / 2) * cell);
  if (mostRows < 1) return plan((most - 3) * cell, cell);
  const scale = Math.min((Math.floor(mostColumns) * cell) / w, (Math.floor(mostRows) * cell) / h);
  const downToPatch = (side: number) => Math.floor((side * scale) / patchSize) * patchSize;
  return plan(downToPatch(w), downToPatch(h));
}

/** The size before it is made of whole patches. */
function wantedSize(width: number, height: number, { minPixels, maxAspectRatio }: ImagePlanOptions): [number, number] {
  const isTooWide = maxAspectRatio !== undefined && width > height * maxAspectRatio;
  const w = isTooWide ? height * maxAspectRatio : width;
  if (w * height >= minPixels) return [w, height];
  const factor = Math.sqrt(minPixels / (w * height));
  return [Math.trunc(w * factor), Math.trunc(height * factor)];
}

function planOf(
  width: number,
  height: number,
  mode: "pad" | "stretch",
  { patchSize, downsampleRatio }: ImagePlanOptions,
): ImagePlan {
  if (width === 0 || height === 0) {
    throw new MediaError("The image is too thin: scaled down to what the model takes, a side has no patch", {
      code: "image-shape",
      hint: "Cut it into several images",
    });
  }
  const [patchRows, patchColumns] = [height / patchSize, width / patchSize];
  const [rows, columns] = [Math.ceil(patchRows / downsampleRatio), Math.ceil(patchColumns / downsampleRatio)];
  return { width, height, mode, patchRows, patchColumns, rows, columns, tokens: rows * (columns + 1) + 2 };
}
