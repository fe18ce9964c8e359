/**
 * Reads the header of a GGUF file from its first bytes. Asking for bytes that the file has but that were not read yet throws
 * NeedMoreBytes; asking for bytes that the file does not have is the file's fault and a FormatError.
 */
import { FormatError } from "../errors.ts";

/** More of the file is needed; not an error of the file. */
export class NeedMoreBytes extends Error {}

export interface Cursor {
  readonly at: number;
  /** Bytes of the whole file. */
  readonly size: number;
  text(bytes: number): string;
  u32(): number;
  u64(): bigint;
  /** A number of one of GGUF's numeric types; 64-bit ones that a double cannot hold are bigint. */
  number(type: number): number | bigint;
  /** A count of things that take at least `least` bytes each. */
  count(least: number, what: string): number;
  /** A length of such things in a value. */
  length(least: number, what: string): number;
  string(what: string): string;
  /** Passes over bytes; `skipString` over a text, of which nothing is made. */
  skip(bytes: number): void;
  skipString(what: string): void;
  /** Another cursor from a place that this one has passed. */
  from(at: number): Cursor;
  /** A key or name: valid UTF-8 of a bounded length. */
  name(maxBytes: number, what: string): string;
}

const lenient = new TextDecoder("utf-8", { ignoreBOM: true });
const strict = new TextDecoder("utf-8", { ignoreBOM: true, fatal: true });

/** Over the first bytes of a file of `size` bytes. */
export function newCursor(bytes: Uint8Array, size: number, from = 0): Cursor {
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  let at = from;
  const fail = (code: string, message: string): never => {
    throw new FormatError(message, { code });
  };
  const take = (count: number): number => {
    if (at + count > size) fail("truncated", "the file ends within the header");
    if (at + count > bytes.length) throw new NeedMoreBytes();
    at += count;
    return at - count;
  };
  const u64 = () => view.getBigUint64(take(8), true);
  const bounded = (code: string, least: number, what: string): number => {
    const start = take(8);
    // A double: one that it does not hold exactly is refused anyway.
    const count = view.getUint32(start, true) + 2 ** 32 * view.getUint32(start + 4, true);
    if (count * least > size - at)
      fail(code, `${what}: ${view.getBigUint64(start, true)} of at least ${least} bytes do not fit the file`);
    return count;
  };
  const slice = (length: number) => {
    const start = take(length);
    return bytes.subarray(start, start + length);
  };
  const exact = (value: bigint) => (Number.isSafeInteger(Number(value)) ? Number(value) : value);
  const readers: Readonly<Record<number, () => number | bigint>> = {
    0: () => view.getUint8(take(1)),
    1: () => view.getInt8(take(1)),
    2: () => view.getUint16(take(2), true),
    3: () => view.getInt16(take(2), true),
    4: () => view.getUint32(take(4), true),
    5: () => view.getInt32(take(4), true),
    6: () => view.getFloat32(take(4), true),
    10: () => exact(u64()),
    11: () => exact(view.getBigInt64(take(8), true)),
    12: () => view.getFloat64(take(8), true),
  };
  return {
    get at() {
      return at;
    },
    size,
    text: (count) => lenient.decode(slice(count)),
    u32: () => view.getUint32(take(4), true),
    u64,
    number: (type) => readers[type]!(),
    count: (least, what) => bounded("count-past-end", least, what),
    length: (least, what) => bounded("length-past-end", least, what),
    string: (what) => lenient.decode(slice(bounded("length-past-end", 1, what))),
    skip: take,
    skipString: (what) => void take(bounded("length-past-end", 1, what)),
    from: (start) => newCursor(bytes, size, start),
    name(maxBytes, what) {
      const length = bounded("length-past-end", 1, what);
      if (length > maxBytes) fail("name-too-long", `${what} has ${length} bytes, more than ${maxBytes}`);
      try {
        return strict.decode(slice(length));
      } catch (error) {
        if (error instanceof TypeError) return fail("name-not-utf8", `${what} is not UTF-8`);
        throw error;
      }
    },
  };
}
