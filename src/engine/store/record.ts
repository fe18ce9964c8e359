/**
 * A record of the store: a header of 64 bytes, a few bytes of description (what the index needs), the payload, zeros up to a
 * multiple of 64. All numbers are little-endian.
 *   0  magic "V4KV"   4  format version u8   5  type u8   6  flags u16 (0)
 *   8  length of the description u32   12  length of the payload u32
 *   16 CRC-32 of the description   20  CRC-32 of the payload   24  reserved u32 (0)   28  group u32
 *   32 key, 28 bytes: the first 28 of a SHA-256   60  CRC-32 of bytes 0 to 59, begun with the secret of the store
 * The header's checksum begins with a number that is drawn when the store is made: no text that a client sends can look like a
 * record of it, so a scan that has lost its way finds the next record by looking for one.
 */
import { crc32 } from "node:zlib";

export const headerBytes = 64;
/** 64 instead of the customary 4,096: a record of the embedded model's tool map has 200 bytes, and reads need no alignment. */
export const alignment = 64;
export const formatVersion = 1;
const magic = 0x564b3456; // "V4KV"

export const recordTypes = [
  "segment",
  "block",
  "frontier",
  "toolmap",
  "textindex",
  "tombstone",
  "commit",
  "footer",
  "end",
] as const;
export type RecordType = (typeof recordTypes)[number];

/** Limits that hold for every record: a length beyond them is damage. */
export const mostDescriptionBytes = 1024;
export const mostPayloadBytes = 1 << 30;

/** 28 bytes as a string of as many characters: the key of maps. */
export type RecordKey = string;
export const keyBytes = 28;

export interface RecordHeader {
  readonly type: RecordType;
  readonly key: RecordKey;
  readonly descriptionBytes: number;
  readonly descriptionChecksum: number;
  readonly payloadBytes: number;
  readonly payloadChecksum: number;
  /** Number of the group that the record belongs to; its COMMIT has the same. */
  readonly group: number;
}

export interface NewRecord {
  readonly type: RecordType;
  readonly key: RecordKey;
  readonly description?: Uint8Array;
  readonly payload?: Uint8Array;
}

const nothing = new Uint8Array(0);

/** The parts of a record in the order of the file. */
export function encodeRecord(record: NewRecord, group: number, secret: number): readonly Uint8Array[] {
  const { description = nothing, payload = nothing } = record;
  const header = encodeHeader(
    {
      type: record.type,
      key: record.key,
      descriptionBytes: description.length,
      descriptionChecksum: crc32(description),
      payloadBytes: payload.length,
      payloadChecksum: crc32(payload),
      group,
    },
    secret,
  );
  const bytes = headerBytes + description.length + payload.length;
  return [header, description, payload, new Uint8Array(recordBytes(description.length, payload.length) - bytes)];
}

export function recordBytes(descriptionBytes: number, payloadBytes: number): number {
  return Math.ceil((headerBytes + descriptionBytes + payloadBytes) / alignment) * alignment;
}

export function encodeHeader(header: RecordHeader, secret: number): Uint8Array {
  const bytes = Buffer.alloc(headerBytes);
  bytes.writeUInt32LE(magic, 0);
  bytes.writeUInt8(formatVersion, 4);
  bytes.writeUInt8(recordTypes.indexOf(header.type), 5);
  bytes.writeUInt32LE(header.descriptionBytes, 8);
  bytes.writeUInt32LE(header.payloadBytes, 12);
  bytes.writeUInt32LE(header.descriptionChecksum, 16);
  bytes.writeUInt32LE(header.payloadChecksum, 20);
  bytes.writeUInt32LE(header.group, 28);
  bytes.write(header.key, 32, keyBytes, "latin1");
  bytes.writeUInt32LE(crc32(bytes.subarray(0, 60), secret), 60);
  return bytes;
}

/** Undefined for bytes that are no header of this store. */
export function decodeHeader(bytes: Uint8Array, offset: number, secret: number): RecordHeader | undefined {
  if (offset + headerBytes > bytes.length) return undefined;
  const view = Buffer.from(bytes.buffer, bytes.byteOffset + offset, headerBytes);
  if (view.readUInt32LE(0) !== magic || view.readUInt8(4) !== formatVersion) return undefined;
  if (view.readUInt32LE(60) !== crc32(view.subarray(0, 60), secret)) return undefined;
  const type = recordTypes.at(view.readUInt8(5));
  const descriptionBytes = view.readUInt32LE(8);
  const payloadBytes = view.readUInt32LE(12);
  if (type === undefined || descriptionBytes > mostDescriptionBytes || payloadBytes > mostPayloadBytes)
    return undefined;
  return {
    type,
    key: view.toString("latin1", 32, 32 + keyBytes),
    descriptionBytes,
    payloadBytes,
    descriptionChecksum: view.readUInt32LE(16),
    payloadChecksum: view.readUInt32LE(20),
    group: view.readUInt32LE(28),
  };
}

/** Whether bytes are those that a checksum was made of. */
export function isIntact(bytes: Uint8Array, length: number, checksum: number): boolean {
  return bytes.length === length && crc32(bytes) === checksum;
}
