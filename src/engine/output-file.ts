/**
 * Files that are there whole or not at all: written under another name beside their place, and given their own when all is written. What
 * stops the writing (a full disk, Ctrl-C, an end of the process in the middle) leaves nothing behind, and a file that was there before
 * as it was. Only what ends the process without a word (SIGKILL, a loss of power) leaves OUT.partial.
 */
import { rmSync } from "node:fs";
import { type FileHandle, open, rename, rm, stat } from "node:fs/promises";
import { ModelError } from "../errors.ts";

export interface OutputFile {
  /** All of the bytes, from a place of the file on. */
  write(bytes: Uint8Array, begin: number): Promise<void>;
  /** Makes the file so long; what was not written is zero and may take no room. */
  resize(bytes: number): Promise<void>;
}

/** Throws a ModelError (code "file") that says why it cannot be written. */
export async function writeWhole(path: string, write: (file: OutputFile) => Promise<void>): Promise<void> {
  await requireNoOther(path);
  const partial = `${path}.partial`;
  using _ = beforeExit(() => rmSync(partial, { force: true }));
  try {
    const handle = await open(partial, "w");
    try {
      await write({
        write: (bytes, begin) => writeAll(handle, bytes, begin),
        resize: (bytes) => handle.truncate(bytes),
      });
    } finally {
      await handle.close();
    }
    await rename(partial, path);
  } catch (error) {
    await rm(partial, { force: true }).catch(() => {}); // what stopped the writing is told, not this
    throw unwritable(error, path);
  }
}

/** What is to be undone if the process ends before this is disposed of: what began last is undone first. */
export function beforeExit(undo: () => void): Disposable {
  process.prependListener("exit", undo);
  return { [Symbol.dispose]: () => void process.off("exit", undo) };
}

/** A folder, a device or a pipe is not to be replaced by a file. */
async function requireNoOther(path: string): Promise<void> {
  const found = await stat(path).catch(() => undefined);
  if (found === undefined || found.isFile()) return;
  throw new ModelError(`Cannot write the file: ${found.isDirectory() ? "a folder" : "no regular file"} is there`, {
    code: "file",
    where: path,
    hint: "Give the path of a new file, or of one to replace",
  });
}

/** The operating system may take a part of the bytes only. */
async function writeAll(handle: FileHandle, bytes: Uint8Array, begin: number): Promise<void> {
  for (let done = 0; done < bytes.length; ) {
    const { bytesWritten } = await handle.write(bytes, done, bytes.length - done, begin + done);
    done += bytesWritten;
  }
}

const reasons: Readonly<Record<string, readonly [reason: string, hint: string]>> = {
  ENOENT: ["its folder does not exist", "Make the folder first"],
  ENOTDIR: ["a part of the path is no folder", "Give another path"],
  EEXIST: ["a file is there", "Give another path, or delete the file"],
  EISDIR: ["a folder is there", "Give another path"],
  EACCES: ["permission denied", "Give a path that this user may write to"],
  EPERM: ["permission denied", "Give a path that this user may write to"],
  EROFS: ["the disk is read-only", "Give a path on another disk"],
  ENOSPC: ["the disk is full", "Make room, or give a path on another disk"],
  EDQUOT: ["the quota of the disk is used up", "Make room, or give a path on another disk"],
  EFBIG: ["the disk holds no file of this size", "Give a path on another disk"],
};

/** An error of the operating system as one of ours; others as they are. */
export function unwritable(error: unknown, path: string): unknown {
  const { code, message } = error as NodeJS.ErrnoException;
  if (error instanceof ModelError || code === undefined || !/^E[A-Z]+$/.test(code)) return error;
  const [reason, hint] = reasons[code] ?? [message, "Give another path"];
  return new ModelError(`Cannot write the file: ${reason}`, { code: "file", where: path, hint, cause: error });
}
