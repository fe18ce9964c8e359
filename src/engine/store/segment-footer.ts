/**
 * The end of a sealed segment: a record that repeats the headers and descriptions of all others, and a mark that says where it stands.
 * With them a segment is opened by two reads.
 */
import type { StoreFile } from "./file-system.ts";
import {
  alignment,
  decodeHeader,
  encodeHeader,
  encodeRecord,
  headerBytes,
  isIntact,
  keyBytes,
  recordBytes,
} from "./record.ts";
import type { ScannedRecord } from "./segment.ts";

/** An entry a record: its offset in units of 64 bytes, header, description. */
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

/** Undefined for a segment that is not sealed, or whose footer is damaged. */
export async function readFooter(file: StoreFile, size: number, secret: number): Promise<ScannedRecord[] | undefined> {
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
  return parseFooter(payload, offset, secret);
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
