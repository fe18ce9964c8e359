/**
 * MANIFEST: which store a directory holds. Text of four lines; replaced as a whole (new file, rename). What it says can also be read
 * from the first record of each segment, so a lost one costs nothing.
 *   freehold-kv 1
 *   store 0123456789abcdef0123456789abcdef
 *   segments 3 4 7
 *   crc32 89abcdef
 * Other versions may say anything in between, but begin and end like that: a damaged byte must not look like another version.
 */
import { join } from "node:path";
import { crc32 } from "node:zlib";
import { FormatError } from "../../errors.ts";
import type { FileSystem } from "./file-system.ts";
import { formatVersion } from "./record.ts";

export interface Manifest {
  /** 32 hexadecimal digits, drawn when the store was made. */
  readonly store: string;
  readonly segments: readonly number[];
}

const fileName = "MANIFEST";
const mostBytes = 1 << 20;

/**
 * Undefined when there is none, or none that can be read. Throws for a version that this program does not know: such a store is to
 * be left alone.
 */
export async function readManifest(files: FileSystem, directory: string): Promise<Manifest | undefined> {
  const bytes = await readSmallFile(files, join(directory, fileName));
  if (bytes === undefined) return undefined;
  const text = checked(Buffer.from(bytes).toString("latin1"));
  const version = Number(/^freehold-kv (\d{1,9})\n/.exec(text ?? "")?.[1]);
  if (version > formatVersion) {
    throw new FormatError(`The store is of version ${version}, this program knows ${formatVersion}`, {
      code: "store-version",
      where: directory,
      hint: "Use the newer program, or give another directory",
    });
  }
  return text === undefined ? undefined : parseManifest(text);
}

/** The text before its checksum; undefined if that is another one's. */
function checked(text: string): string | undefined {
  const found = /^(.*\n)crc32 ([0-9a-f]{8})\n$/s.exec(text);
  return found !== null && hex(crc32(found[1]!)) === found[2] ? found[1] : undefined;
}

function parseManifest(text: string): Manifest | undefined {
  const found = /^freehold-kv 1\nstore ([0-9a-f]{32})\nsegments((?: [1-9]\d{0,8})*)\n$/.exec(text);
  return found === null ? undefined : { store: found[1]!, segments: found[2]!.split(" ").slice(1).map(Number) };
}

export async function writeManifest(files: FileSystem, directory: string, manifest: Manifest): Promise<void> {
  const temporary = join(directory, `${fileName}.new`);
  await files.remove(temporary).catch(() => {}); // left by a process that was killed
  const file = await files.open(temporary, "create");
  try {
    await file.write(0, [Buffer.from(formatManifest(manifest), "latin1")]);
    await file.sync();
  } finally {
    await file.close();
  }
  await files.rename(temporary, join(directory, fileName));
  await files.syncDirectory(directory);
}

export function formatManifest({ store, segments }: Manifest): string {
  const list = segments.map((number) => ` ${number}`).join("");
  const text = `freehold-kv ${formatVersion}\nstore ${store}\nsegments${list}\n`;
  return `${text}crc32 ${hex(crc32(text))}\n`;
}

function hex(value: number): string {
  return value.toString(16).padStart(8, "0");
}

async function readSmallFile(files: FileSystem, path: string): Promise<Uint8Array | undefined> {
  const file = await files.open(path, "read").catch(() => undefined);
  if (file === undefined) return undefined;
  try {
    const size = await file.size();
    return size > mostBytes ? undefined : await file.read(0, size);
  } catch {
    return undefined; // a directory, or a disk that fails: the segments tell the same
  } finally {
    await file.close();
  }
}
