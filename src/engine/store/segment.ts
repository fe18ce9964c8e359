/**
 * A segment: one file of records, written from its beginning to its end and never changed. The first record names the store; records
 * count from the COMMIT on that follows them. A segment that is full is sealed: a footer repeats all headers, so that opening it
 * again takes two reads. Whatever else is in the file, a scan finds the intact records.
 */
import { join } from "node:path";
import type { FileSystem, StoreFile } from "./file-system.ts";
import { decodeHeader, encodeHeader, headerBytes, keyBytes, type RecordHeader } from "./record.ts";

/** Where a record lies, with what the index needs of it. */
export interface ScannedRecord {
  readonly header: RecordHeader;
  readonly description: Uint8Array;
  readonly offset: number;
}

export class Segment {
  readonly number: number;
  readonly path: string;
  readonly file: StoreFile;
  /** Bytes that count: behind the last COMMIT, or the end of the footer. */
  size: number;
  isSealed: boolean;
  /** Bytes of the records that the index names. */
  liveBytes = 0;
  #readers = 0;
  #isRemoved = false;

  constructor(number: number, path: string, file: StoreFile, { size, isSealed }: { size: number; isSealed: boolean }) {
    this.number = number;
    this.path = path;
    this.file = file;
    this.size = size;
    this.isSealed = isSealed;
  }

  async read(offset: number, length: number): Promise<Uint8Array> {
    this.#readers++;
    try {
      return await this.file.read(offset, length);
    } finally {
      this.#readers--;
      if (this.#isRemoved && this.#readers === 0) await this.file.close().catch(() => {});
    }
  }

  /** Closes the file as soon as nobody reads from it. */
  async release(): Promise<void> {
    if (this.#isRemoved) return;
    this.#isRemoved = true;
    if (this.#readers === 0) await this.file.close().catch(() => {});
  }
}

export function segmentPath(directory: string, number: number): string {
  return join(directory, `seg-${String(number).padStart(6, "0")}.v4k`);
}

export function segmentNumber(name: string): number | undefined {
  const found = /^seg-(\d{6,9})\.v4k$/.exec(name);
  return found === null ? undefined : Number(found[1]);
}

/** Makes the file with its first record. The caller lists it in the MANIFEST. */
export async function createSegment(
  files: FileSystem,
  directory: string,
  number: number,
  store: string,
): Promise<Segment> {
  const path = segmentPath(directory, number);
  const file = await files.open(path, "create");
  try {
    await file.write(0, [encodeFirstHeader(store, number)]);
    await file.sync();
    await files.syncDirectory(directory);
  } catch (error) {
    await file.close().catch(() => {});
    await files.remove(path).catch(() => {});
    throw error;
  }
  return new Segment(number, path, file, { size: headerBytes, isSealed: false });
}

export function encodeFirstHeader(store: string, number: number): Uint8Array {
  const key = Buffer.alloc(keyBytes);
  key.write(store, 0, "hex");
  key.writeUInt32LE(number, 16);
  const nothing = { descriptionBytes: 0, descriptionChecksum: 0, payloadBytes: 0, payloadChecksum: 0, group: 0 };
  return encodeHeader({ type: "segment", key: key.toString("latin1"), ...nothing }, 0);
}

/** The store that a segment belongs to; undefined if its first record is damaged or of another number. */
export function storeOfSegment(first: Uint8Array, number: number): string | undefined {
  const header = decodeHeader(first, 0, 0);
  if (header?.type !== "segment") return undefined;
  const key = Buffer.from(header.key, "latin1");
  return key.readUInt32LE(16) === number ? key.toString("hex", 0, 16) : undefined;
}
