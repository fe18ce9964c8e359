/** One image, as the worker does it: decode, turn, fit, and name what came out. */
import { createHash } from "node:crypto";
import { damaged } from "./byte-view.ts";
import type { Decoders } from "./decoders.ts";
import { oriented } from "./exif-orientation.ts";
import { type Fit, fitImage } from "./fit-image.ts";
import type { ImageHeader } from "./image-header.ts";
import type { Pixels } from "./pixels.ts";

export interface DecodeJob {
  readonly bytes: Uint8Array;
  readonly header: ImageHeader;
  readonly fit: Fit | undefined;
}

export interface DecodedImage extends Pixels {
  /** SHA-256 (hex) of version, size and bytes of the pixels: equal for images that are equal to the model. */
  readonly key: string;
}

/** Counts up when other pixels come out of the same file, so that what was cached under the old key is not found. */
export const pixelsVersion = 1;

export async function decodeImage({ bytes, header, fit }: DecodeJob, decoders: Decoders): Promise<DecodedImage> {
  const decoded = await decoders.decode(bytes, header);
  if (decoded.width !== header.width || decoded.height !== header.height) {
    throw damaged(
      `its header says ${header.width} x ${header.height}, its pixels ${decoded.width} x ${decoded.height}`,
    );
  }
  const turned = oriented(decoded, header.orientation);
  const pixels = fit === undefined ? turned : fitImage(turned, fit);
  return { ...pixels, key: keyOf(pixels) };
}

function keyOf({ width, height, data }: Pixels): string {
  return createHash("sha256")
    .update(`freehold image ${pixelsVersion}\n${width} x ${height}\n`)
    .update(data)
    .digest("hex");
}
