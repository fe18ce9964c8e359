/**
 * The type of an image by its first bytes, never by its name or by what its sender says. Types that are known but not read are
 * refused by name, so that the answer says what to do.
 */
import { MediaError } from "../errors.ts";

export type ImageKind = "png" | "jpeg" | "webp" | "gif";

const supported = "PNG, JPEG, WebP and GIF are read";

/** Brands of ISO base media files (the `ftyp` box) that are images. */
const isoBrands: Readonly<Record<string, string>> = {
  avif: "AVIF",
  avis: "AVIF",
  heic: "HEIF",
  heix: "HEIF",
  heim: "HEIF",
  heis: "HEIF",
  hevc: "HEIF",
  mif1: "HEIF",
  msf1: "HEIF",
};

/** Throws a MediaError for empty bytes ("image-empty"), a type that is refused or unknown ("image-type"). */
export function imageKind(bytes: Uint8Array): ImageKind {
  if (bytes.length === 0) {
    throw new MediaError("The image is empty", { code: "image-empty", hint: supported });
  }
  const start = latin1(bytes, 0, 12);
  if (start.startsWith("\x89PNG\r\n\x1a\n")) return "png";
  if (start.startsWith("\xff\xd8\xff")) return "jpeg";
  if (/^GIF8[79]a/.test(start)) return "gif";
  if (start.startsWith("RIFF") && start.endsWith("WEBP")) return "webp";
  const name = refusedKind(bytes, start);
  throw new MediaError(name === undefined ? "The image is of no known type" : `${name} images are not read`, {
    code: "image-type",
    hint: name === undefined ? supported : `${supported}; convert it to one of them`,
  });
}

function refusedKind(bytes: Uint8Array, start: string): string | undefined {
  if (start.slice(4, 8) === "ftyp") return isoBrands[start.slice(8, 12)] ?? "ISO media (ftyp)";
  if (/^(II\*\0|MM\0\*|II\+\0|MM\0\+)/.test(start)) return "TIFF";
  if (start.startsWith("BM")) return "BMP";
  if (start.startsWith("\0\0\x01\0") || start.startsWith("\0\0\x02\0")) return "ICO";
  if (start.startsWith("8BPS")) return "Photoshop";
  if (start.startsWith("%PDF")) return "PDF";
  if (start.startsWith("\xff\x0a") || start.startsWith("\0\0\0\x0cJXL ")) return "JPEG XL";
  if (start.startsWith("\0\0\0\x0cjP  ") || start.startsWith("\xff\x4f\xff\x51")) return "JPEG 2000";
  if (/^\s*(\ufeff|\xef\xbb\xbf)?\s*<(\?xml|svg|!--|!doctype\s+svg)/i.test(latin1(bytes, 0, 256))) return "SVG";
  return undefined;
}

export function latin1(bytes: Uint8Array, from: number, to: number): string {
  return String.fromCharCode(...bytes.subarray(from, Math.min(to, bytes.length)));
}
