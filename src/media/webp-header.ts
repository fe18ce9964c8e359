/**
 * What a WebP says about itself before its pixels (RFC 9649): the size of the bitstream that will be decoded, which must be
 * that of the canvas, and orientation from its EXIF chunk. Animations are refused.
 */
import { ByteView, damaged, truncated, unsupported } from "./byte-view.ts";
import { exifOrientation, type Orientation } from "./exif-orientation.ts";
import type { ImageHeader } from "./image-header.ts";
import { latin1 } from "./image-kind.ts";

interface Size {
  readonly width: number;
  readonly height: number;
}

const mostChunks = 4096;

export function readWebpHeader(bytes: Uint8Array): ImageHeader {
  const view = new ByteView(bytes);
  let canvas: Size | undefined;
  let image: Size | undefined;
  let orientation: Orientation = 1;
  let isWhole = true;
  for (let at = 12, chunk = 0; at + 8 <= bytes.length && chunk < mostChunks; chunk++) {
    const length = view.u32(at + 4, true);
    const data = at + 8;
    switch (latin1(bytes, at, at + 4)) {
      case "VP8X":
        canvas = { width: view.u24(data + 4) + 1, height: view.u24(data + 7) + 1 };
        if ((view.u8(data) & 2) !== 0) throw unsupported("Animated WebP files", "Send one of its frames");
        break;
      case "VP8 ":
        image ??= lossySize(view, data);
        isWhole = data + length <= bytes.length;
        break;
      case "VP8L":
        image ??= losslessSize(view, data);
        isWhole = data + length <= bytes.length;
        break;
      case "EXIF":
        orientation = exifOrientation(bytes.subarray(data, data + length));
        break;
    }
    at = data + length + (length % 2);
  }
  if (image === undefined) throw truncated();
  if (canvas !== undefined && (canvas.width !== image.width || canvas.height !== image.height)) {
    throw damaged(`its canvas is ${canvas.width} x ${canvas.height}, its pixels ${image.width} x ${image.height}`);
  }
  return { kind: "webp", ...image, orientation, flaw: isWhole ? undefined : truncated() };
}

/** The frame header of VP8 (RFC 6386, section 9.1). */
function lossySize(view: ByteView, at: number): Size {
  if ((view.u8(at) & 1) !== 0) throw damaged("it begins with no key frame");
  if (view.u24(at + 3) !== 0x2a019d) throw damaged("its VP8 start code is wrong");
  return { width: view.u16(at + 6, true) & 0x3fff, height: view.u16(at + 8, true) & 0x3fff };
}

function losslessSize(view: ByteView, at: number): Size {
  if (view.u8(at) !== 0x2f) throw damaged("its VP8L signature is wrong");
  const bits = view.u32(at + 1, true);
  return { width: (bits & 0x3fff) + 1, height: ((bits >>> 14) & 0x3fff) + 1 };
}
