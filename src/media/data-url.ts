/**
 * The bytes of a base64 `data:` URL (RFC 2397) or of bare base64 (RFC 4648, section 4). Strict: the alphabet of base64 only,
 * padding where it belongs, no white space. The length is checked before anything is decoded. The media type is not believed.
 */
import { MediaError } from "../errors.ts";

/** Throws a MediaError: "image-url" for an address, "data-url" for anything else, "image-bytes" for more than `maxBytes` bytes. */
export function bytesOfDataUrl(url: string, maxBytes: number): Uint8Array {
  if (!/^data:/i.test(url.slice(0, 5))) {
    const address = /^([a-z][a-z0-9+.-]*):/i.exec(url.slice(0, 32));
    if (address !== null) throw notFetched(url);
    return bytesOfBase64(url, 0, maxBytes);
  }
  const comma = url.slice(0, 256).indexOf(",");
  if (comma < 0) throw malformed("it has no comma in its first 256 characters");
  if (!/;base64$/i.test(url.slice(5, comma))) throw malformed("it is not base64");
  return bytesOfBase64(url, comma + 1, maxBytes);
}

function bytesOfBase64(text: string, start: number, maxBytes: number): Uint8Array {
  const characters = text.length - start;
  if (characters % 4 !== 0) throw malformed(`${characters} characters are no base64: it comes in groups of four`);
  const padding = text.endsWith("==") ? 2 : text.endsWith("=") ? 1 : 0;
  const length = (characters / 4) * 3 - padding;
  if (length > maxBytes) throw tooManyBytes(length, maxBytes);
  if (length <= 0) throw new MediaError("The image is empty", { code: "image-empty" });
  const bytes = new Uint8Array(length);
  let wrong = 0;
  let to = 0;
  for (let at = start; at < text.length; at += 4) {
    const four = [0, 1, 2, 3].map((i) => digitOf(text.charCodeAt(at + i), at + i >= text.length - padding)) as Four;
    const bits = (four[0] << 18) | (four[1] << 12) | (four[2] << 6) | four[3];
    wrong |= bits;
    bytes[to++] = bits >> 16;
    if (to < length) bytes[to++] = bits >> 8;
    if (to < length) bytes[to++] = bits;
  }
  if (wrong < 0) throw malformed("it has a character that is not in the alphabet of base64");
  return bytes;
}
type Four = [number, number, number, number];

/** 0 to 63; a negative number for what is no digit. */
function digitOf(character: number, isPadding: boolean): number {
  if (isPadding) return 0;
  return character < 128 ? digits[character]! : -1;
}

const alphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
const digits = Int32Array.from({ length: 128 }, (_, code) => alphabet.indexOf(String.fromCharCode(code)));

function notFetched(url: string): MediaError {
  return new MediaError(`Images are not fetched from addresses: ${JSON.stringify(url.slice(0, 80))}`, {
    code: "image-url",
    hint: "Send the image itself, as data:image/png;base64,...",
  });
}

function malformed(why: string): MediaError {
  return new MediaError(`The image is no base64 data: URL: ${why}`, {
    code: "data-url",
    hint: "Send data:image/png;base64,... ; addresses on the network are not fetched",
  });
}

export function tooManyBytes(length: number, most: number): MediaError {
  return new MediaError(`The image has ${length} bytes, ${most} are the most`, {
    code: "image-bytes",
    hint: "Make it smaller, or save it as JPEG",
  });
}
