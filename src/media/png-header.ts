/** What a PNG says about itself before its pixels (W3C PNG, third edition): size, and orientation from an eXIf chunk. */
import { ByteView, damaged } from "./byte-view.ts";
import { exifOrientation } from "./exif-orientation.ts";
import type { ImageHeader } from "./image-header.ts";
import { latin1 } from "./image-kind.ts";

/** Chunks that are looked at for eXIf; files have tens. */
const mostChunks = 65_536;

export function readPngHeader(bytes: Uint8Array): ImageHeader {
  const view = new ByteView(bytes);
  if (view.u32(8) !== 13 || latin1(bytes, 12, 16) !== "IHDR") throw damaged("its first chunk is not IHDR");
  return { kind: "png", width: view.u32(16), height: view.u32(20), orientation: orientationOf(view) };
}

function orientationOf(view: ByteView) {
  for (let at = 8, chunk = 0; at + 12 <= view.length && chunk < mostChunks; chunk++) {
    const length = view.u32(at);
    const type = latin1(view.bytes, at + 4, at + 8);
    if (type === "eXIf") return exifOrientation(view.bytes.subarray(at + 8, at + 8 + length));
    at += length + 12;
  }
  return 1;
}
