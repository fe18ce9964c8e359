/**
 * What a JPEG says about itself before its pixels (ITU T.81): size, number of components, orientation from its EXIF block, and whether
 * the rest of the file has an end and can hold so many pixels: decoders fill up with grey what is missing, however much that is.
 * Markers are walked through as libjpeg does, so that the size is the one it will decode.
 */
import { ByteView, damaged, truncated, unsupported } from "./byte-view.ts";
import { exifOrientation, type Orientation } from "./exif-orientation.ts";
import type { ImageHeader } from "./image-header.ts";
import { latin1 } from "./image-kind.ts";

/** Segments in front of the size; files have tens, those with large profiles hundreds. */
const mostSegments = 65_536;
/** Bytes 0xff that are looked at for the end; 32 MiB of pixels have 131,072. */
const mostMarkersBehind = 262_144;
/** Fill bytes in front of a marker; files have none. */
const mostFill = 2 ** 20;

export function readJpegHeader(bytes: Uint8Array): ImageHeader {
  const view = new ByteView(bytes);
  let orientation: Orientation = 1;
  for (let at = 2, segment = 0; segment < mostSegments; segment++) {
    at = bytes.indexOf(0xff, at); // bytes between segments are skipped
    if (at < 0) throw truncated();
    const filled = at;
    while (bytes[at] === 0xff && at - filled <= mostFill) at++;
    if (at - filled > mostFill) throw damaged(`more than ${mostFill} bytes in front of a marker`);
    const marker = view.u8(at++);
    if (marker === 0 || marker === 0x01 || (marker >= 0xd0 && marker <= 0xd8)) continue;
    if (marker === 0xd9 || marker === 0xda) throw damaged("its pixels begin before its size is known");
    const length = view.u16(at);
    if (length < 2) throw damaged("a segment has no length");
    if (isFrame(marker)) {
      const frame = readFrame(view, marker, at);
      const isWhole = canHold(bytes.subarray(at + length), frame.width * frame.height);
      return { ...frame, orientation, flaw: isWhole ? undefined : truncated() };
    }
    if (marker === 0xe1 && latin1(bytes, at + 2, at + 8) === "Exif\0\0") {
      orientation = exifOrientation(bytes.subarray(at + 2, at + length));
    }
    at += length;
  }
  throw damaged(`more than ${mostSegments} segments before its size`);
}

/** A block of 64 pixels takes a code of at least one bit; behind all of them stands EOI. */
function canHold(rest: Uint8Array, pixels: number): boolean {
  return rest.length * 8 >= Math.floor(pixels / 64) && hasEnd(rest);
}

/** From behind, where the end is in nearly all files; every 256th byte of compressed pixels is 0xff. */
function hasEnd(bytes: Uint8Array): boolean {
  let at = bytes.length - 1;
  for (let marker = 0; marker < mostMarkersBehind && at > 0; marker++) {
    at = bytes.lastIndexOf(0xff, at - 1);
    if (at >= 0 && bytes[at + 1] === 0xd9) return true;
  }
  return false;
}

/** SOF0 to SOF15; DHT, JPG and DAC have numbers among them. */
function isFrame(marker: number): boolean {
  return marker >= 0xc0 && marker <= 0xcf && marker !== 0xc4 && marker !== 0xc8 && marker !== 0xcc;
}

function readFrame(view: ByteView, marker: number, at: number) {
  const hint = "Save it as a baseline or progressive JPEG of 8 bits, or as PNG";
  if (marker > 0xc2) throw unsupported("JPEG files with lossless, hierarchical or arithmetic coding", hint);
  if (view.u8(at + 2) !== 8) throw unsupported(`JPEG files of ${view.u8(at + 2)} bits`, hint);
  const height = view.u16(at + 3);
  if (height === 0) throw unsupported("JPEG files that tell their height at the end (DNL)", hint);
  return { kind: "jpeg", width: view.u16(at + 5), height, components: view.u8(at + 7) } as const;
}
