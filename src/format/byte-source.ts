/** Where bytes come from: a file, a download, memory. Read by range, never as a whole. */
import { FormatError } from "../errors.ts";

export interface ByteSource {
  /** For messages: the file's name. */
  readonly name: string;
  readonly size: number;
  /** Exactly `length` bytes, in memory of their own that begins at offset 0 of its buffer. */
  read(offset: number, length: number): Promise<Uint8Array<ArrayBuffer>>;
  close(): Promise<void>;
}

export class MemorySource implements ByteSource {
  readonly name: string;
  readonly #bytes: Uint8Array;

  constructor(name: string, bytes: Uint8Array) {
    this.name = name;
    this.#bytes = bytes;
  }

  get size(): number {
    return this.#bytes.length;
  }

  read(offset: number, length: number): Promise<Uint8Array<ArrayBuffer>> {
    if (offset + length > this.#bytes.length) {
      throw new FormatError(`The file ends after ${this.#bytes.length} bytes, ${offset + length} were expected`, {
        code: "truncated",
        where: this.name,
      });
    }
    return Promise.resolve(Uint8Array.from(this.#bytes.subarray(offset, offset + length)));
  }

  close(): Promise<void> {
    return Promise.resolve();
  }
}
