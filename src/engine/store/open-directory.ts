/**
 * Opens the directory of a store: takes the lock, reads MANIFEST and segments, cuts off what was never committed. Damage costs what is
 * damaged, never the start: files that are no segments of this store are removed, a lost MANIFEST is written anew.
 */
import { randomBytes } from "node:crypto";
import { crc32 } from "node:zlib";
import { FreeholdError } from "../../errors.ts";
import type { DirectoryLock } from "./directory-lock.ts";
import type { FileSystem, StoreFile } from "./file-system.ts";
import { readManifest, writeManifest } from "./manifest.ts";
import { headerBytes, recordBytes } from "./record.ts";
import { decodeDescription, type RecordIndex, type StoredRecord } from "./record-index.ts";
import { scanSegment } from "./scan-segment.ts";
import { type ScannedRecord, Segment, segmentNumber, segmentPath, storeOfSegment } from "./segment.ts";

export interface OpenedDirectory {
  readonly store: string;
  readonly secret: number;
  readonly segments: Map<number, Segment>;
  /** Where to go on writing, with what is in it. */
  readonly active: { readonly segment: Segment; readonly records: readonly ScannedRecord[] } | undefined;
  readonly lastGroup: number;
  /** Segments that hold records which a TOMBSTONE names: to be collected soon. */
  readonly forgotten: ReadonlySet<Segment>;
  readonly damaged: number;
  /** Absent: nothing may be written. */
  readonly lock: DirectoryLock | undefined;
}

/** Fills the index. `canWrite: false` opens what is there without touching it. */
export async function openDirectory(
  files: FileSystem,
  directory: string,
  index: RecordIndex,
  { canWrite }: { canWrite: boolean },
): Promise<OpenedDirectory> {
  if (canWrite) await files.makeDirectory(directory);
  await requireOwnDirectory(files, directory);
  const lock = canWrite ? await files.lock(directory) : undefined;
  try {
    return { ...(await openSegments(files, directory, index, canWrite)), lock };
  } catch (error) {
    await lock?.release();
    throw error;
  }
}

/** A directory that holds something else is not taken: a wrong path must not mix the store with other files. */
async function requireOwnDirectory(files: FileSystem, directory: string): Promise<void> {
  const names = await files.list(directory);
  const isStore = names.some((name) => name === "MANIFEST" || segmentNumber(name) !== undefined);
  const foreign = names.find((name) => !/^(LOCK|MANIFEST|lost\+found)/.test(name));
  if (isStore || foreign === undefined) return;
  throw new FreeholdError(`The directory of the store holds other files: ${JSON.stringify(foreign.slice(0, 80))}`, {
    code: "store-directory",
    where: directory,
    hint: "Give an empty directory, or one that does not exist",
  });
}

async function openSegments(
  files: FileSystem,
  directory: string,
  index: RecordIndex,
  canWrite: boolean,
): Promise<Omit<OpenedDirectory, "lock">> {
  const manifest = await readManifest(files, directory);
  if (canWrite) await files.makePrivate(directory);
  const names = await files.list(directory);
  const numbers = names.flatMap((name) => segmentNumber(name) ?? []).sort((a, b) => a - b);
  const found: { number: number; file: StoreFile; store: string | undefined }[] = [];
  for (const number of numbers) {
    const file = await files.open(segmentPath(directory, number), canWrite ? "write" : "read").catch(() => undefined);
    if (file === undefined) continue; // unreadable today: left alone
    const first = await file.read(0, headerBytes).catch(() => new Uint8Array(0));
    found.push({ number, file, store: storeOfSegment(first, number) });
  }
  const store =
    manifest?.store ?? found.find((each) => each.store !== undefined)?.store ?? randomBytes(16).toString("hex");
  const secret = crc32(Buffer.from(store, "hex"));

  const segments = new Map<number, Segment>();
  const forgotten = new Set<Segment>();
  let [lastGroup, damaged] = [0, 0];
  let active: OpenedDirectory["active"];
  for (const { number, file, store: owner } of found) {
    const path = segmentPath(directory, number);
    const scan = owner === store ? await scanSegment(file, secret).catch(() => undefined) : undefined;
    if (scan === undefined) {
      damaged++;
      await file.close().catch(() => {});
      if (canWrite && owner !== store) await files.remove(path).catch(() => {});
      continue;
    }
    const segment = new Segment(number, path, file, { size: scan.end, isSealed: scan.isSealed });
    segments.set(number, segment);
    damaged += scan.damaged;
    for (const record of scan.records) {
      lastGroup = Math.max(lastGroup, record.header.group);
      addToIndex(index, record, segment, forgotten);
    }
    const isCut = !canWrite || (await cutTail(file, scan.end));
    active = scan.isSealed || !isCut ? undefined : { segment, records: scan.records };
  }
  for (const segment of segments.values()) if (segment !== active?.segment) segment.isSealed = true;
  index.prune();
  const listed = [...segments.keys()];
  if (canWrite && (manifest === undefined || String(manifest.segments) !== String(listed)))
    await writeManifest(files, directory, { store, segments: listed });
  return { store, secret, segments, active, lastGroup, forgotten, damaged };
}

/** Nothing is written behind bytes that could not be cut off: the next group takes a new segment then. */
async function cutTail(file: StoreFile, end: number): Promise<boolean> {
  try {
    if ((await file.size()) > end) await file.truncate(end);
    return true;
  } catch {
    return false;
  }
}

function addToIndex(index: RecordIndex, record: ScannedRecord, segment: Segment, forgotten: Set<Segment>): void {
  if (record.header.type === "tombstone") {
    for (const touched of index.removeRoot(record.header.key)) forgotten.add(touched);
    return;
  }
  const stored = storedRecord(record, segment, index.nextUse());
  if (stored !== undefined) index.add(stored);
}

/** Undefined for a record that the index has no use for. */
export function storedRecord(scanned: ScannedRecord, segment: Segment, lastUse: number): StoredRecord | undefined {
  const { header, description, offset } = scanned;
  const described = decodeDescription(description);
  if (described === undefined) return undefined;
  const bytes = recordBytes(header.descriptionBytes, header.payloadBytes);
  return { type: header.type, key: header.key, ...described, segment, offset, header, description, bytes, lastUse };
}
