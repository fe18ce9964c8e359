/** A thread that reads rows of files into shared memory, and waits for the disk so that nobody else has to. */
import { openSync, readSync } from "node:fs";
import { parentPort } from "node:worker_threads";
import type { ReadDone, ReadJob } from "./row-reader.ts";

const files = new Map<string, number>();

function read({ rows, stretches, stride, memory }: ReadJob): void {
  const bytes = new Uint8Array(memory);
  for (const { path, begin, rowBytes, at } of stretches) {
    const file = opened(path);
    for (const [i, row] of rows.entries()) {
      const offset = begin + row * rowBytes;
      const found = readSync(file, bytes, at + i * stride, rowBytes, offset);
      if (found < rowBytes)
        throw new Error(`${path} ends at byte ${offset + found}, ${offset + rowBytes} were expected`);
    }
  }
}

function opened(path: string): number {
  const file = files.get(path) ?? openSync(path, "r");
  files.set(path, file);
  return file;
}

parentPort!.on("message", (job: ReadJob) => {
  const done: ReadDone = { id: job.id };
  try {
    read(job);
    parentPort!.postMessage(done);
  } catch (error) {
    parentPort!.postMessage({ ...done, error: (error as Error).message } satisfies ReadDone);
  }
});
