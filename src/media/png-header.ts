/**
 * What a PNG says about itself before its pixels (W3C PNG, third edition): size, orientation from an eXIf chunk, whether its
 * compressed bytes are all there and can hold so many pixels, and whether they are those of its checksums.
 */
import { crc32 } from "node:zlib";
import type { MediaError } from "../errors.ts";
import { ByteView, damaged, truncated } from "./byte-view.ts";
import { exifOrientation, type Orientation } from "./exif-orientation.ts";
import type { ImageHeader } from "./image-header.ts";
import { latin1 } from "./image-kind.ts";

/** Chunks of a file; those of 32 MiB in pieces of 8 KiB are 4,096. */
const mostChunks = 65_536;
/** Deflate (RFC 1951) gives at most 258 bytes for two bits. */
const mostInflation = 1032;
/** Samples of a pixel by colour type. */
const samples: Readonly<Record<number, number>> = { 0: 1, 2: 3, 3: 1, 4: 2, 6: 4 };

export function readPngHeader(bytes: Uint8Array): ImageHeader {
  const view = new ByteView(bytes);
  if (view.u32(8) !== 13 || latin1(bytes, 12, 16) !== "IHDR") throw damaged("its first chunk is not IHDR");
  const [width, height, bits, colour] = [view.u32(16), view.u32(20), view.u8(24), view.u8(25)];
  const { orientation, pixelBytes, flaw } = walkChunks(view);
  const leastBytes = (width * height * bits * (samples[colour] ?? 1)) / 8;
  const isWhole = pixelBytes * mostInflation >= leastBytes;
  return { kind: "png", width, height, orientation, flaw: isWhole ? flaw : truncated() };
}

interface Chunks {
  readonly orientation: Orientation;
  /** Of all IDAT chunks; 0 where one ends behind the file. */
  readonly pixelBytes: number;
  readonly flaw: MediaError | undefined;
}

function walkChunks(view: ByteView): Chunks {
  let orientation: Orientation | undefined;
  let pixelBytes = 0;
  let flaw: MediaError | undefined;
  for (let at = 8, chunk = 0; at + 12 <= view.length; chunk++) {
    if (chunk === mostChunks) throw damaged(`more than ${mostChunks} chunks`);
    const length = view.u32(at);
    const type = latin1(view.bytes, at + 4, at + 8);
    if (type === "IEND") break;
    if (at + 12 + length > view.length) return { orientation: orientation ?? 1, pixelBytes: 0, flaw };
    const isCritical = type < "a";
    if (isCritical && crc32(view.bytes.subarray(at + 4, at + 8 + length)) !== view.u32(at + 8 + length)) {
      flaw ??= damaged(`the checksum of ${JSON.stringify(type)}`);
    }
    if (type === "IDAT") pixelBytes += length;
    if (type === "eXIf") orientation ??= exifOrientation(view.bytes.subarray(at + 8, at + 8 + length));
    at += length + 12;
  }
  return { orientation: orientation ?? 1, pixelBytes, flaw };
}
