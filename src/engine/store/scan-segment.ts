/**
 * Reads what a segment holds: from its footer, or record by record. A scan goes past damage to the next header of the store.
 */
import type { StoreFile } from "./file-system.ts";
import { alignment, decodeHeader, headerBytes, isIntact, mostDescriptionBytes, recordBytes } from "./record.ts";
import type { ScannedRecord } from "./segment.ts";
import { readFooter } from "./segment-footer.ts";

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
  const sealed = await readFooter(file, size, secret);
  if (sealed !== undefined) return { records: sealed, end: size, isSealed: true, damaged: 0 };
  return scanRecords(file, size, secret);
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
