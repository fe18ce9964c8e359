/**
 * A segment: one file of records, written from its beginning to its end and never changed. The first record names the store; records
 * count from the COMMIT on that follows them. A segment that is full is sealed: a footer repeats all headers, so that opening it
 * again takes two reads. Whatever else is in the file, a scan finds the intact records.
 */
import { join } from "node:path";
import type { FileSystem, StoreFile } from "./file-system.ts";
import {
  alignment,
  decodeHeader,
  encodeHeader,
  encodeRecord,
  headerBytes,
  isIntact,
  keyBytes,
  mostDescriptionBytes,
  type RecordHeader,
  recordBytes,
} from "./record.ts";

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

export interface ScanResult {
  readonly records: readonly ScannedRecord[];
  /** Where the next record may be written: behind the last COMMIT. */
  readonly end: number;
  readonly isSealed: boolean;
  /** Stretches of damage that the scan went past; a torn end counts as one. */
  readonly damaged: number;
}

/** All records that were committed. Reads headers only, or the footer. */
export async function scanSegment(file: StoreFile, secret: number): Promise<ScanResult> {
  const size = await file.size();
  return (await readFooter(file, size, secret)) ?? scanRecords(file, size, secret);
}

async function scanRecords(file: StoreFile, size: number, secret: number): Promise<ScanResult> {
  const reader = new WindowReader(file, size);
  const records: ScannedRecord[] = [];
  let waiting: ScannedRecord[] = [];
  let last = { records: [] as ScannedRecord[], begin: headerBytes };
  let end = headerBytes;
  let damaged = 0;
  for (let offset = headerBytes; offset + headerBytes <= size; ) {
    const record = await readRecordHead(reader, offset, secret);
    const next = record && offset + recordBytes(record.header.descriptionBytes, record.header.payloadBytes);
    if (record === undefined || next! > size) {
      damaged++;
      offset = await nextHeader(reader, offset + alignment, secret);
      continue;
    }
    offset = next!;
    if (record.header.type === "commit") {
      // Groups are written one after another: a COMMIT of a later group tells that those before were committed as well.
      records.push(...last.records);
      last = { records: waiting.filter(({ header }) => header.group <= record.header.group), begin: end };
      waiting = [];
      end = offset;
    } else waiting.push(record);
  }
  if (await isGroupIntact(file, last.records)) records.push(...last.records);
  else {
    damaged++;
    end = last.begin;
  }
  return { records, end, isSealed: false, damaged };
}

/**
 * When the power goes while the last group is written, its COMMIT may be on the disk and other parts of it not. Groups before it were
 * safe before it began. So its payloads are checked here: what was never acknowledged must not take the place of an older record.
 */
async function isGroupIntact(file: StoreFile, records: readonly ScannedRecord[]): Promise<boolean> {
  for (const { header, offset } of records) {
    const payload = await file.read(offset + headerBytes + header.descriptionBytes, header.payloadBytes);
    if (!isIntact(payload, header.payloadBytes, header.payloadChecksum)) return false;
  }
  return true;
}

async function readRecordHead(
  reader: WindowReader,
  offset: number,
  secret: number,
): Promise<ScannedRecord | undefined> {
  const bytes = await reader.at(offset, headerBytes + mostDescriptionBytes);
  const header = decodeHeader(bytes, 0, secret);
  if (header === undefined) return undefined;
  const description = bytes.slice(headerBytes, headerBytes + header.descriptionBytes);
  return isIntact(description, header.descriptionBytes, header.descriptionChecksum)
    ? { header, description, offset }
    : undefined;
}

const searchBytes = 1 << 20;
const magic = Buffer.from("V4KV");

/** The first place from `offset` on where a header of this store stands, or the end of the file. */
async function nextHeader(reader: WindowReader, offset: number, secret: number): Promise<number> {
  for (let start = offset; start < reader.size; start += searchBytes) {
    const bytes = await reader.at(start, searchBytes + headerBytes);
    for (let i = bytes.indexOf(magic); i >= 0 && i < searchBytes; i = bytes.indexOf(magic, i + 1)) {
      const isAligned = (start + i) % alignment === 0;
      if (isAligned && decodeHeader(bytes, i, secret) !== undefined) return start + i;
    }
  }
  return reader.size;
}

/** Reads of a few bytes here and there, from a window that is filled by one read. */
class WindowReader {
  readonly size: number;
  readonly #file: StoreFile;
  #window: Buffer = Buffer.alloc(0);
  #start = 0;

  constructor(file: StoreFile, size: number) {
    this.#file = file;
    this.size = size;
  }

  /** Fewer bytes at the end of the file. */
  async at(offset: number, length: number): Promise<Buffer> {
    const wanted = Math.max(0, Math.min(length, this.size - offset));
    const isInside = offset >= this.#start && offset + wanted <= this.#start + this.#window.length;
    if (!isInside) {
      const bytes = await this.#file.read(offset, Math.min(Math.max(wanted, 4096), this.size - offset));
      this.#window = Buffer.from(bytes.buffer, bytes.byteOffset, bytes.length);
      this.#start = offset;
    }
    return this.#window.subarray(offset - this.#start, offset - this.#start + wanted);
  }
}

/** The footer and the mark that ends a sealed segment: an entry a record, its offset in units of 64 bytes, header, description. */
export function encodeFooter(records: readonly ScannedRecord[], footerOffset: number, secret: number): Uint8Array {
  const entries = records.map(({ header, description, offset }) => {
    const place = Buffer.alloc(4);
    place.writeUInt32LE(offset / alignment);
    return Buffer.concat([place, encodeHeader(header, secret), description]);
  });
  const key = Buffer.alloc(keyBytes);
  key.writeDoubleLE(footerOffset, 0);
  const footer = { type: "footer" as const, key: key.toString("latin1"), payload: Buffer.concat(entries) };
  const end = { type: "end" as const, key: key.toString("latin1") };
  return Buffer.concat([...encodeRecord(footer, 0, secret), ...encodeRecord(end, 0, secret)]);
}

async function readFooter(file: StoreFile, size: number, secret: number): Promise<ScanResult | undefined> {
  if (size < 3 * headerBytes || size % alignment !== 0) return undefined;
  const end = decodeHeader(await file.read(size - headerBytes, headerBytes), 0, secret);
  if (end?.type !== "end") return undefined;
  const offset = Buffer.from(end.key, "latin1").readDoubleLE(0);
  if (!Number.isSafeInteger(offset) || offset < headerBytes || offset > size - 2 * headerBytes) return undefined;
  const bytes = await file.read(offset, size - headerBytes - offset);
  const footer = decodeHeader(bytes, 0, secret);
  if (footer?.type !== "footer") return undefined;
  const payload = bytes.subarray(headerBytes, headerBytes + footer.payloadBytes);
  if (!isIntact(payload, footer.payloadBytes, footer.payloadChecksum)) return undefined;
  const records = parseFooter(payload, offset, secret);
  return records && { records, end: size, isSealed: true, damaged: 0 };
}

function parseFooter(payload: Uint8Array, footerOffset: number, secret: number): ScannedRecord[] | undefined {
  const view = Buffer.from(payload.buffer, payload.byteOffset, payload.length);
  const records: ScannedRecord[] = [];
  for (let at = 0; at < payload.length; ) {
    if (at + 4 + headerBytes > payload.length) return undefined;
    const offset = view.readUInt32LE(at) * alignment;
    const header = decodeHeader(payload, at + 4, secret);
    if (header === undefined) return undefined;
    const begin = at + 4 + headerBytes;
    const description = payload.slice(begin, begin + header.descriptionBytes);
    const isThere = offset + recordBytes(header.descriptionBytes, header.payloadBytes) <= footerOffset;
    if (!isThere || !isIntact(description, header.descriptionBytes, header.descriptionChecksum)) return undefined;
    records.push({ header, description, offset });
    at = begin + header.descriptionBytes;
  }
  return records;
}
