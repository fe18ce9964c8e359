/** Type, size and orientation of an image from its first bytes: all that is needed to refuse one before anything is decoded. */
import type { MediaError } from "../errors.ts";
import type { Orientation } from "./exif-orientation.ts";
import { readGifHeader } from "./gif.ts";
import { type ImageKind, imageKind } from "./image-kind.ts";
import { readJpegHeader } from "./jpeg-header.ts";
import { readPngHeader } from "./png-header.ts";
import { readWebpHeader } from "./webp-header.ts";

export interface ImageHeader {
  readonly kind: ImageKind;
  /** As stored, before it is turned. */
  readonly width: number;
  readonly height: number;
  readonly orientation: Orientation;
  /** What is surely wrong with its pixels. Decoders would find out with memory for all of them. */
  readonly flaw?: MediaError | undefined;
  /** JPEG: 1 grey, 3 colour, 4 CMYK. */
  readonly components?: number;
}

/** Throws a MediaError: "image-empty", "image-type", "image-truncated", "image-damaged". */
export function readImageHeader(bytes: Uint8Array): ImageHeader {
  const kind = imageKind(bytes);
  switch (kind) {
    case "png":
      return readPngHeader(bytes);
    case "jpeg":
      return readJpegHeader(bytes);
    case "webp":
      return readWebpHeader(bytes);
    case "gif":
      return readGifHeader(bytes);
    default:
      return kind satisfies never;
  }
}
