/** Puts a picture into a given size: scaled with its proportions kept and padded with grey (Pillow's ImageOps.pad), or stretched. */
import { MediaError } from "../errors.ts";
import type { Pixels } from "./pixels.ts";
import { resizeBicubic } from "./resize-bicubic.ts";

export interface Fit {
  readonly width: number;
  readonly height: number;
  readonly mode: "pad" | "stretch";
}

/** What is left free by a picture of other proportions. */
const padding = 127;

export function fitImage(image: Pixels, { width, height, mode }: Fit): Pixels {
  if (mode === "stretch") return resizeBicubic(image, width, height);
  const inner = innerSize(image, width, height);
  const resized = resizeBicubic(image, inner.width, inner.height);
  if (inner.width === width && inner.height === height) return resized;
  const data = new Uint8Array(3 * width * height).fill(padding);
  const left = inner.width === width ? 0 : roundHalfEven((width - inner.width) * 0.5);
  const top = inner.width === width ? roundHalfEven((height - inner.height) * 0.5) : 0;
  for (let y = 0; y < Math.min(inner.height, height); y++) {
    const row = resized.data.subarray(3 * y * inner.width, 3 * (y * inner.width + Math.min(inner.width, width)));
    data.set(row, 3 * ((top + y) * width + left));
  }
  return { width, height, data };
}

/** The size that keeps the proportions. Throws where a side would vanish, as Pillow does. */
function innerSize(image: Pixels, width: number, height: number): { width: number; height: number } {
  const [proportion, wanted] = [image.width / image.height, width / height];
  const inner =
    proportion > wanted
      ? { width, height: roundHalfEven((image.height / image.width) * width) }
      : proportion < wanted
        ? { width: roundHalfEven(proportion * height), height }
        : { width, height };
  if (inner.width > 0 && inner.height > 0) return inner;
  throw new MediaError(`The image of ${image.width} x ${image.height} is too thin: scaled down, a side has no pixel`, {
    code: "image-shape",
    hint: "Cut it into several images",
  });
}

/** Python's round(). */
export function roundHalfEven(x: number): number {
  const down = Math.floor(x);
  const rest = x - down;
  if (rest !== 0.5) return rest < 0.5 ? down : down + 1;
  return down % 2 === 0 ? down : down + 1;
}
