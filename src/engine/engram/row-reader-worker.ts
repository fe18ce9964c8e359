/** A thread that reads rows of files into shared memory, and waits for the disk so that nobody else has to. */
import { readSync } from "node:fs";
import { parentPort } from "node:worker_threads";
import type { ReadDone, ReadJob } from "./row-reader.ts";

/** Says what went wrong, if anything. */
function read({ id, rows, stretches, stride, memory }: ReadJob): ReadDone {
  const bytes = new Uint8Array(memory);
  for (const { path, file, begin, rowBytes, at } of stretches) {
    for (const [i, row] of rows.entries()) {
      const offset = begin + row * rowBytes;
      const found = readOrFail(file, bytes, at + i * stride, rowBytes, offset);
      if (found === rowBytes) continue;
      const error =
        typeof found === "string"
          ? found
          : `${path} ends at byte ${offset + found}, ${offset + rowBytes} were expected`;
      return { id, where: path, error };
    }
  }
  return { id };
}

/** Bytes that were read, or why none were. */
function readOrFail(file: number, bytes: Uint8Array, at: number, length: number, offset: number): number | string {
  try {
    return readSync(file, bytes, at, length, offset);
  } catch (error) {
    return `Cannot read rows: ${(error as Error).message}`;
  }
}

parentPort!.on("message", (job: ReadJob) => parentPort!.postMessage(read(job)));
