/**
 * The bytes of a base64 `data:` URL (RFC 2397) or of bare base64 (RFC 4648, section 4). Strict: the alphabet of base64 only,
 * padding where it belongs, no white space. The length is checked before anything is decoded. The media type is not believed.
 */
import { setImmediate as othersTurn } from "node:timers/promises";
import { MediaError } from "../errors.ts";

/** Characters that are decoded at once, a multiple of four: a millisecond. */
const charactersAtOnce = 2 ** 20;

/** A piece at a time. Throws a MediaError: "image-url" for an address, "data-url" for anything else, "image-bytes" for more than `maxBytes` bytes. */
export async function bytesOfDataUrl(url: string, maxBytes: number): Promise<Uint8Array> {
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

async function bytesOfBase64(text: string, start: number, maxBytes: number): Promise<Uint8Array> {
  const characters = text.length - start;
  if (characters % 4 !== 0) throw malformed(`${characters} characters are no base64: it comes in groups of four`);
  const padding = text.endsWith("==") ? 2 : text.endsWith("=") ? 1 : 0;
  const length = (characters / 4) * 3 - padding;
  if (length > maxBytes) throw tooManyBytes(length, maxBytes);
  if (length <= 0) throw new MediaError("The image is empty", { code: "image-empty" });
  const bytes = new Uint8Array(length);
  for (let at = start, written = 0; at < text.length; at += charactersAtOnce) {
    if (at > start) await othersTurn();
    const piece = text.slice(at, at + charactersAtOnce);
    written += decodePiece(piece, bytes.subarray(written), at + charactersAtOnce >= text.length ? padding : 0);
  }
  return bytes;
}

/** Writes the bytes of whole groups of four and tells how many they are. */
function decodePiece(piece: string, into: Uint8Array, padding: number): number {
  const written = Buffer.from(into.buffer, into.byteOffset, into.length).write(piece, "base64");
  // Buffer skips what is no base64, and then has fewer bytes; it takes the letters of base64url and those beyond ASCII for others.
  const isForeign = Buffer.byteLength(piece) !== piece.length || piece.includes("-") || piece.includes("_");
  if (written === (piece.length / 4) * 3 - padding && !isForeign) return written;
  throw malformed("it has a character that is not in the alphabet of base64");
}

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
