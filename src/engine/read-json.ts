/** The JSON files of a model folder. */
import { ModelError } from "../errors.ts";
import { type Json, JsonReader } from "../json/parse-json.ts";
import type { ModelFiles } from "./checkpoint.ts";
import type { Pacer } from "./pacer.ts";

export const downloadHint = "Download the file again";

const maxBytes = 64 * 1024 * 1024;
/** Bytes and values that are read at once: a millisecond or two. */
const pieceBytes = 1 << 16;
const valuesAtOnce = 2048;

/** Throws a ModelError for a file that is not there (with the hint), too large, or no JSON. */
export async function readJson(files: ModelFiles, file: string, hint: string): Promise<unknown> {
  const bytes = await readBytes(files, file, hint);
  try {
    return JSON.parse(new TextDecoder("utf-8", { fatal: true }).decode(bytes));
  } catch (error) {
    throw notJson(files, file, error);
  }
}

/** The same of a file that may be megabytes long, in pieces: what runs beside it is not held up. */
export async function readLongJson(files: ModelFiles, file: string, hint: string, pacer: Pacer): Promise<Json> {
  const bytes = await readBytes(files, file, hint);
  pacer.restart();
  const decoder = new TextDecoder("utf-8", { fatal: true });
  const reader = new JsonReader();
  try {
    for (let at = 0, isLast = false; !isLast; at += pieceBytes) {
      isLast = at + pieceBytes >= bytes.length;
      reader.give(decoder.decode(bytes.subarray(at, at + pieceBytes), { stream: !isLast }), isLast);
      while (!reader.advance(valuesAtOnce)) await pacer.pause();
      await pacer.pause();
    }
  } catch (error) {
    throw notJson(files, file, error);
  }
  return reader.value;
}

async function readBytes(files: ModelFiles, file: string, hint: string): Promise<Uint8Array> {
  if (!(await files.has(file)))
    throw new ModelError(`There is no ${file}`, { code: "no-file", where: files.name, hint });
  const source = await files.open(file);
  try {
    if (source.size <= maxBytes) return await source.read(0, source.size);
    const where = `${files.name}/${file}`;
    throw new ModelError(`${file} is larger than 64 MiB`, { code: "too-large", where, hint: downloadHint });
  } finally {
    await source.close();
  }
}

function notJson(files: ModelFiles, file: string, cause: unknown): ModelError {
  const where = `${files.name}/${file}`;
  const message = `${file} is not JSON: ${(cause as Error).message}`;
  return new ModelError(message, { code: "json", where, hint: downloadHint, cause });
}
