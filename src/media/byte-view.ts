/** Whole numbers out of bytes whose length is not trusted: reading past the end is a MediaError, not undefined. */
import { MediaError } from "../errors.ts";

export class ByteView {
  readonly bytes: Uint8Array;
  readonly #view: DataView;

  constructor(bytes: Uint8Array) {
    this.bytes = bytes;
    this.#view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  }

  get length(): number {
    return this.bytes.length;
  }

  u8(at: number): number {
    return this.#view.getUint8(this.#inside(at, 1));
  }

  u16(at: number, littleEndian = false): number {
    return this.#view.getUint16(this.#inside(at, 2), littleEndian);
  }

  u24(at: number): number {
    return this.u16(at, true) + this.u8(at + 2) * 65_536; // little-endian: only WebP has numbers of three bytes
  }

  u32(at: number, littleEndian = false): number {
    return this.#view.getUint32(this.#inside(at, 4), littleEndian);
  }

  #inside(at: number, length: number): number {
    if (at + length <= this.bytes.length) return at;
    throw truncated();
  }
}

export function truncated(): MediaError {
  return new MediaError("The image ends too early", { code: "image-truncated", hint: "Send the whole file" });
}

export function damaged(what: string): MediaError {
  return new MediaError(`The image is damaged: ${what}`, {
    code: "image-damaged",
    hint: "Open it in an image editor and save it again",
  });
}

export function unsupported(what: string, hint: string): MediaError {
  return new MediaError(`${what} are not read`, { code: "image-type", hint });
}
