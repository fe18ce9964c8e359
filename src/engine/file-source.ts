/** A file on disk as a ByteSource. */
import { constants } from "node:fs";
import { type FileHandle, open } from "node:fs/promises";
import { basename } from "node:path";
import { FormatError, ModelError } from "../errors.ts";
import type { ByteSource } from "../format/byte-source.ts";

/** Bytes that are read at once: after each such piece an aborted signal is heard. */
const pieceBytes = 64 << 20;

/** To read, and without waiting for a writer where the path is a pipe. Windows has no such flag, nor such paths. */
const openFlags = constants.O_RDONLY | (constants.O_NONBLOCK ?? 0);

export class FileSource implements ByteSource {
  readonly name: string;
  readonly path: string;
  readonly size: number;
  readonly #handle: FileHandle;
  readonly #signal: AbortSignal | undefined;

  private constructor(path: string, size: number, handle: FileHandle, signal: AbortSignal | undefined) {
    this.name = basename(path);
    this.path = path;
    this.size = size;
    this.#handle = handle;
    this.#signal = signal;
  }

  /** The operating system's number of the open file. */
  get descriptor(): number {
    return this.#handle.fd;
  }

  /** An aborted `signal` ends every read of the file, by throwing the signal's reason. */
  static async open(path: string, signal?: AbortSignal): Promise<FileSource> {
    signal?.throwIfAborted();
    try {
      const handle = await open(path, openFlags);
      const stat = await handle.stat();
      if (stat.isFile()) return new FileSource(path, stat.size, handle, signal);
      await handle.close();
    } catch (error) {
      throw new ModelError(`Cannot open the file: ${reason(error)}`, {
        code: "file",
        where: path,
        hint: "Give the path of a file that this user may read",
        cause: error,
      });
    }
    throw new ModelError("Cannot open the file: it is no regular file", {
      code: "file",
      where: path,
      hint: "Give the path of a file; what a pipe gives, write to a file first",
    });
  }

  async read(offset: number, length: number): Promise<Uint8Array<ArrayBuffer>> {
    const bytes = new Uint8Array(length);
    for (let done = 0; done < length; ) {
      this.#signal?.throwIfAborted();
      const { bytesRead } = await this.#handle.read(bytes, done, Math.min(length - done, pieceBytes), offset + done);
      if (bytesRead === 0) {
        throw new FormatError(`The file ends at byte ${offset + done}, ${offset + length} were expected`, {
          code: "truncated",
          where: this.name,
          hint: "It changed or was cut off; copy it again",
        });
      }
      done += bytesRead;
    }
    return bytes;
  }

  close(): Promise<void> {
    return this.#handle.close();
  }
}

function reason(error: unknown): string {
  const { code, message } = error as NodeJS.ErrnoException;
  if (code === "ENOENT") return "it does not exist";
  if (code === "EACCES") return "permission denied";
  return message;
}
