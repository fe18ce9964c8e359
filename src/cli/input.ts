/** Reading what a user gives: an argument, a file, stdin. Every input has a bound and a typed error. */
import { createReadStream } from "node:fs";
import { RequestError, UsageError } from "../errors.ts";

/** Bytes of the largest text that a command reads into memory. */
const maxBytes = 512 * 1024 * 1024;

export async function readTextFile(path: string): Promise<string> {
  if (path === "-") return readStdin();
  try {
    // Piece by piece: a device or a pipe does not say how much it will give.
    return decodeText(await readBounded(createReadStream(path), maxBytes, () => tooLarge(path)), path);
  } catch (error) {
    if (error instanceof RequestError) throw error;
    throw new RequestError(`Cannot read the file: ${reasonOf(error)}`, {
      code: "file",
      where: path,
      hint: "Give the path of a file that this user may read, or - for stdin",
      cause: error,
    });
  }
}

export async function readStdin(): Promise<string> {
  return decodeText(await readBounded(process.stdin, maxBytes, () => tooLarge("stdin")), "stdin");
}

/** All bytes of a stream; throws `tooLarge` when there are more than `most`. */
export async function readBounded(
  stream: AsyncIterable<Buffer>,
  most: number,
  tooLarge: () => RequestError,
): Promise<Buffer> {
  const chunks: Buffer[] = [];
  let size = 0;
  for await (const chunk of stream) {
    size += chunk.length;
    if (size > most) throw tooLarge();
    chunks.push(chunk);
  }
  return Buffer.concat(chunks);
}

export async function readJsonFile(path: string): Promise<unknown> {
  const text = await readTextFile(path);
  try {
    return JSON.parse(withoutByteOrderMark(text));
  } catch (error) {
    throw new RequestError(`The file is not JSON: ${(error as Error).message}`, {
      code: "json",
      where: path,
      cause: error,
    });
  }
}

/** Some editors put one before JSON, where it means nothing. */
export function withoutByteOrderMark(text: string): string {
  return text.replace(/^\ufeff/, "");
}

/** "1,2,3" (blanks allowed) as numbers; what is no whole number is named. */
export function parseIds(text: string, option: string): number[] {
  const parts = text.split(/[\s,]+/).filter((part) => part !== "");
  return parts.map((part) => {
    if (!/^\d{1,15}$/.test(part)) {
      throw new UsageError(`"${part}" is not a token id`, { where: option, hint: "Give whole numbers: --ids 1,2,3" });
    }
    return Number(part);
  });
}

export function isIdList(value: unknown): value is number[] {
  return Array.isArray(value) && value.every((id) => Number.isInteger(id) && id >= 0);
}

export function noIdList(file: string): UsageError {
  return new UsageError("The file holds no list of token ids", { where: file, hint: "It should be like [1, 2, 3]" });
}

/** Text from outside must be UTF-8: a wrong byte would silently become another text. */
function decodeText(bytes: Uint8Array, where: string): string {
  try {
    // A byte order mark is text like any other: what is tokenised is what was given.
    return new TextDecoder("utf-8", { fatal: true, ignoreBOM: true }).decode(bytes);
  } catch (error) {
    throw new RequestError("The text is not UTF-8", {
      code: "encoding",
      where,
      hint: "Convert it first, with iconv -t utf-8",
      cause: error,
    });
  }
}

function tooLarge(where: string): RequestError {
  return new RequestError(`The input is larger than ${maxBytes / 1024 / 1024} MiB`, {
    code: "too-large",
    where,
    hint: "Split it",
  });
}

/** Why a file cannot be read, in words. */
export function reasonOf(error: unknown): string {
  const { code, message } = error as NodeJS.ErrnoException;
  if (code === "ENOENT") return "it does not exist";
  if (code === "EISDIR") return "it is a folder";
  if (code === "EACCES") return "permission denied";
  return message;
}
