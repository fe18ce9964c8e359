/**
 * A thread that reads rows of files into shared memory, and waits for the disk so that nobody else has to. Plain JavaScript, so that
 * Node need not load a compiler for TypeScript into every one of them (10 MB each).
 */
import { openSync, readSync } from "node:fs";
import { parentPort } from "node:worker_threads";

/** @type {Map<string, number>} */
const files = new Map();

/** @param {import("./row-reader.ts").ReadJob} job */
function read({ rows, stretches, stride, memory }) {
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

/** @param {string} path */
function opened(path) {
  const file = files.get(path) ?? openSync(path, "r");
  files.set(path, file);
  return file;
}

const port = /** @type {import("node:worker_threads").MessagePort} */ (parentPort);
port.on("message", (/** @type {import("./row-reader.ts").ReadJob} */ job) => {
  /** @type {import("./row-reader.ts").ReadDone} */
  let done = { id: job.id };
  try {
    read(job);
  } catch (error) {
    done = { id: job.id, error: /** @type {Error} */ (error).message };
  }
  port.postMessage(done);
});
