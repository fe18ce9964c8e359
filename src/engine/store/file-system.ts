/**
 * The few things that the store does with files. A port, because what the store promises after a full disk or a lost power supply
 * can only be tested with files that fail on demand.
 */
import { constants } from "node:fs";
import { chmod, type FileHandle, mkdir, open, readdir, rename, stat, statfs, unlink } from "node:fs/promises";
import { dirname } from "node:path";
import { type DirectoryLock, lockDirectory } from "./directory-lock.ts";

export interface StoreFile {
  size(): Promise<number>;
  /** Fewer bytes than asked for only at the end of the file. */
  read(offset: number, length: number): Promise<Uint8Array>;
  /** All of the bytes, or an error; after an error any part of them may be there. */
  write(offset: number, parts: readonly Uint8Array[]): Promise<void>;
  truncate(size: number): Promise<void>;
  /** What was written survives a loss of power. */
  sync(): Promise<void>;
  close(): Promise<void>;
}

export interface FileSystem {
  /** Takes the directory for this process; throws a StoreLockedError when another one has it. */
  lock(directory: string): Promise<DirectoryLock>;
  /** Creates the directory if it is not there. */
  makeDirectory(path: string): Promise<void>;
  /** Nobody but the owner may look into it. */
  makePrivate(directory: string): Promise<void>;
  list(directory: string): Promise<readonly string[]>;
  /** "create" fails when the file is there. */
  open(path: string, mode: "create" | "write" | "read"): Promise<StoreFile>;
  rename(from: string, to: string): Promise<void>;
  remove(path: string): Promise<void>;
  /** Names that were created, renamed or removed survive a loss of power. */
  syncDirectory(directory: string): Promise<void>;
  /** Bytes that may still be written in the file system that holds the path. */
  freeBytes(path: string): Promise<number>;
}

const flags = {
  create: constants.O_RDWR | constants.O_CREAT | constants.O_EXCL,
  write: constants.O_RDWR,
  read: constants.O_RDONLY,
};

export const diskFileSystem: FileSystem = {
  lock: lockDirectory,
  async makeDirectory(path) {
    const isThere = await stat(path).then(
      (found) => found.isDirectory(),
      () => false,
    );
    if (isThere) return;
    try {
      await mkdir(path, { mode: 0o700 });
    } catch (error) {
      // Not mkdir's own `recursive`: under /proc it never returns (Node 24.21).
      if ((error as NodeJS.ErrnoException).code !== "ENOENT" || dirname(path) === path) throw error;
      const parent = await stat(dirname(path)).catch(() => undefined);
      if (parent !== undefined) throw error;
      await diskFileSystem.makeDirectory(dirname(path));
      await mkdir(path, { mode: 0o700 });
    }
    await diskFileSystem.syncDirectory(dirname(path));
  },
  makePrivate: (directory) => chmod(directory, 0o700),
  list: (directory) => readdir(directory),
  open: async (path, mode) => new DiskFile(await open(path, flags[mode] | (constants.O_NOFOLLOW ?? 0), 0o600)),
  rename,
  remove: unlink,
  async syncDirectory(directory) {
    // Windows cannot open a directory; its names are durable without.
    if (process.platform === "win32") return;
    const handle = await open(directory, "r");
    try {
      await handle.sync();
    } finally {
      await handle.close();
    }
  },
  async freeBytes(path) {
    const { bavail, bsize } = await statfs(path);
    return bavail * bsize;
  },
};

class DiskFile implements StoreFile {
  readonly #handle: FileHandle;

  constructor(handle: FileHandle) {
    this.#handle = handle;
  }

  async size(): Promise<number> {
    return (await this.#handle.stat()).size;
  }

  async read(offset: number, length: number): Promise<Uint8Array> {
    const bytes = Buffer.allocUnsafeSlow(length);
    let done = 0;
    while (done < length) {
      const { bytesRead } = await this.#handle.read(bytes, done, Math.min(length - done, 1 << 30), offset + done);
      if (bytesRead === 0) break;
      done += bytesRead;
    }
    return bytes.subarray(0, done);
  }

  async write(offset: number, parts: readonly Uint8Array[]): Promise<void> {
    let rest = parts.filter(({ length }) => length > 0);
    let position = offset;
    while (rest.length > 0) {
      const { bytesWritten } = await this.#handle.writev(rest.slice(0, 512), position);
      position += bytesWritten;
      rest = without(rest, bytesWritten);
    }
  }

  truncate(size: number): Promise<void> {
    return this.#handle.truncate(size);
  }

  sync(): Promise<void> {
    return this.#handle.datasync();
  }

  close(): Promise<void> {
    return this.#handle.close();
  }
}

/** What is left of some parts after their first `bytes` bytes. */
function without(parts: readonly Uint8Array[], bytes: number): Uint8Array[] {
  let skip = bytes;
  return parts.flatMap((part) => {
    const skipped = Math.min(skip, part.length);
    skip -= skipped;
    return skipped === part.length ? [] : [part.subarray(skipped)];
  });
}
