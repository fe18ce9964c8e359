/**
 * The writing end of a store: records go to the end of the active segment, count with a COMMIT, and a segment that is full is sealed
 * and followed by a new one. What fails on the disk is thrown as a DiskError; the caller rolls back then.
 */
import type { FileSystem } from "./file-system.ts";
import { writeManifest } from "./manifest.ts";
import { type OpenedDirectory, storedRecord } from "./open-directory.ts";
import { encodeRecord, headerBytes, type NewRecord, recordBytes } from "./record.ts";
import type { RecordIndex } from "./record-index.ts";
import { createSegment, type ScannedRecord, type Segment } from "./segment.ts";
import { encodeFooter } from "./segment-footer.ts";

interface Active {
  readonly segment: Segment;
  /** All that was committed to it, for the footer. */
  readonly records: ScannedRecord[];
  /** Where the next record goes. */
  position: number;
}

export class SegmentLog {
  writtenBytes = 0;
  readonly #files: FileSystem;
  readonly #directory: string;
  readonly #opened: OpenedDirectory;
  readonly #index: RecordIndex;
  readonly #segmentBytes: number;
  #active: Active | undefined;
  #pending: { readonly scanned: ScannedRecord; readonly lastUse: number | undefined }[] = [];
  #group: number;

  constructor(files: FileSystem, directory: string, opened: OpenedDirectory, index: RecordIndex, segmentBytes: number) {
    this.#files = files;
    this.#directory = directory;
    this.#opened = opened;
    this.#index = index;
    this.#segmentBytes = segmentBytes;
    this.#group = opened.lastGroup;
    const { active } = opened;
    if (active === undefined) return;
    const { segment, records } = active;
    if (this.canWrite && segment.size < segmentBytes)
      this.#active = { segment, records: [...records], position: segment.size };
    else segment.isSealed = true;
  }

  /** Whether the directory is locked for this process. */
  get canWrite(): boolean {
    return this.#opened.lock !== undefined;
  }

  get segments(): Iterable<Segment> {
    return this.#opened.segments.values();
  }

  get totalBytes(): number {
    let bytes = this.#active === undefined ? 0 : this.#active.position - this.#active.segment.size;
    for (const { size } of this.segments) bytes += size;
    return bytes;
  }

  /** Writes a record of the group that is under way; it counts once the group is committed. */
  async put(record: NewRecord, lastUse?: number): Promise<void> {
    const bytes = recordBytes(record.description?.length ?? 0, record.payload?.length ?? 0);
    let active = await this.#activeSegment();
    if (active.position + bytes > this.#segmentBytes && active.position > headerBytes) {
      await this.commit();
      await this.seal();
      active = await this.#activeSegment();
    }
    if (this.#pending.length === 0) this.#group++;
    const parts = encodeRecord(record, this.#group, this.#opened.secret);
    await onDisk(active.segment.file.write(active.position, parts));
    this.#pending.push({ scanned: scannedRecord(record, parts, this.#group, active.position), lastUse });
    active.position += bytes;
    this.writtenBytes += bytes;
  }

  /** The records that were put are safe on disk, and the index names them. */
  async commit(): Promise<void> {
    if (this.#pending.length === 0) return;
    const active = this.#active!;
    const parts = encodeRecord({ type: "commit", key: "" }, this.#group, this.#opened.secret);
    await onDisk(active.segment.file.write(active.position, parts));
    await onDisk(active.segment.file.sync());
    active.position += recordBytes(0, 0);
    active.segment.size = active.position;
    this.writtenBytes += recordBytes(0, 0);
    for (const { scanned, lastUse } of this.#pending) {
      active.records.push(scanned);
      const stored = storedRecord(scanned, active.segment, lastUse ?? this.#index.nextUse());
      if (stored !== undefined) this.#index.add(stored);
    }
    this.#pending = [];
  }

  /** Ends the active segment with its footer. False when there is none, or nothing in it. */
  async seal(): Promise<boolean> {
    if (this.#active === undefined || this.#active.records.length === 0) return false;
    const { segment, records, position } = this.#active;
    const footer = encodeFooter(records, position, this.#opened.secret);
    await onDisk(segment.file.write(position, [footer]));
    await onDisk(segment.file.sync());
    segment.size = position + footer.length;
    segment.isSealed = true;
    this.writtenBytes += footer.length;
    this.#active = undefined;
    return true;
  }

  /** After an error: what was not committed is cut off, and never written behind. */
  async rollBack(): Promise<void> {
    this.#pending = [];
    const active = this.#active;
    if (active === undefined) return;
    this.#active = undefined;
    active.segment.isSealed = true;
    await active.segment.file.truncate(active.segment.size).catch(() => {});
  }

  /** Removes a segment of which nothing is needed any more. */
  async remove(segment: Segment): Promise<void> {
    this.#opened.segments.delete(segment.number);
    await segment.release();
    await onDisk(this.#files.remove(segment.path));
    await this.#writeManifest();
  }

  async close(): Promise<void> {
    this.#active = undefined;
    for (const segment of this.segments) await segment.release();
    await this.#opened.lock?.release();
  }

  async #activeSegment(): Promise<Active> {
    if (this.#active !== undefined) return this.#active;
    const { segments, store } = this.#opened;
    const number = 1 + Math.max(0, ...segments.keys());
    const segment = await onDisk(createSegment(this.#files, this.#directory, number, store));
    segments.set(number, segment);
    this.#active = { segment, records: [], position: segment.size };
    this.writtenBytes += headerBytes;
    await this.#writeManifest();
    return this.#active;
  }

  async #writeManifest(): Promise<void> {
    const { store, segments } = this.#opened;
    await onDisk(writeManifest(this.#files, this.#directory, { store, segments: [...segments.keys()] }));
  }
}

/** What the disk refused, apart from errors of those who use the store. */
export class DiskError extends Error {
  constructor(cause: unknown) {
    super("disk", { cause });
  }
}

export async function onDisk<T>(work: Promise<T>): Promise<T> {
  try {
    return await work;
  } catch (error) {
    throw new DiskError(error);
  }
}

function scannedRecord(
  record: NewRecord,
  [header, description]: readonly Uint8Array[],
  group: number,
  offset: number,
): ScannedRecord {
  const view = Buffer.from(header!.buffer, header!.byteOffset, headerBytes);
  return {
    header: {
      type: record.type,
      key: record.key,
      descriptionBytes: description!.length,
      payloadBytes: record.payload?.length ?? 0,
      descriptionChecksum: view.readUInt32LE(16),
      payloadChecksum: view.readUInt32LE(20),
      group,
    },
    description: description!,
    offset,
  };
}
