/**
 * What the store holds, in memory: blocks by key, frontiers by the block that they follow, entries of the durable maps by key. It is
 * a forest: a block follows another one, the first of a conversation follows the root of its namespace.
 */
import { blockTokens } from "../../tensor/paging.ts";
import { keyBytes, type RecordHeader, type RecordKey, type RecordType } from "./record.ts";
import type { Segment } from "./segment.ts";

/** A record and where it lies. */
export interface StoredRecord {
  readonly type: RecordType;
  readonly key: RecordKey;
  /** The block before; of a first block and of entries of maps the root of their namespace. */
  readonly parent: RecordKey;
  /** Tokens up to its end: of blocks and frontiers. */
  readonly position: number;
  /** Of a frontier the tokens behind its last whole block. */
  readonly tail: Uint32Array;
  readonly segment: Segment;
  readonly offset: number;
  readonly header: RecordHeader;
  readonly description: Uint8Array;
  /** Bytes in the file. */
  readonly bytes: number;
  /** Counts up with every use of the store: the least is the first to go. */
  lastUse: number;
}

const noTail = new Uint32Array(0);

export interface Description {
  readonly parent: RecordKey;
  readonly position: number;
  readonly tail?: readonly number[];
}

export function encodeDescription({ parent, position, tail = [] }: Description): Uint8Array {
  const bytes = Buffer.alloc(keyBytes + 4 + 4 * tail.length);
  bytes.write(parent, 0, "latin1");
  bytes.writeUInt32LE(position, keyBytes);
  tail.forEach((id, i) => {
    bytes.writeUInt32LE(id, keyBytes + 4 + 4 * i);
  });
  return bytes;
}

/** Undefined for one that no version of this program writes. */
export function decodeDescription(
  bytes: Uint8Array,
): Required<Pick<StoredRecord, "parent" | "position" | "tail">> | undefined {
  if (bytes.length < keyBytes + 4 || bytes.length % 4 !== 0) return undefined;
  const view = Buffer.from(bytes.buffer, bytes.byteOffset, bytes.length);
  const count = (bytes.length - keyBytes - 4) / 4;
  const tail =
    count === 0 ? noTail : Uint32Array.from({ length: count }, (_, i) => view.readUInt32LE(keyBytes + 4 + 4 * i));
  return { parent: view.toString("latin1", 0, keyBytes), position: view.readUInt32LE(keyBytes), tail };
}

export class RecordIndex {
  readonly blocks = new Map<RecordKey, StoredRecord>();
  readonly frontiers = new Map<RecordKey, StoredRecord>();
  /** Entries of the durable maps, the oldest first. */
  readonly entries = new Map<RecordKey, StoredRecord>();
  readonly #frontiersOf = new Map<RecordKey, Set<StoredRecord>>();
  #uses = 0;
  #liveBytes = 0;
  /** Whether something was removed since the forest was pruned. */
  #isPruned = false;

  /** Bytes of all records that the index names. */
  get liveBytes(): number {
    return this.#liveBytes;
  }

  /** Frontiers behind a block (or behind a root, for those within the first block). */
  frontiersOf(parent: RecordKey): Iterable<StoredRecord> {
    return this.#frontiersOf.get(parent) ?? [];
  }

  get(record: Pick<StoredRecord, "type" | "key">): StoredRecord | undefined {
    return this.#mapOf(record.type)?.get(record.key);
  }

  /** Takes the place of one with the same key. */
  add(record: StoredRecord): void {
    const map = this.#mapOf(record.type);
    if (map === undefined) return;
    const before = map.get(record.key);
    if (before !== undefined) this.remove(before);
    map.set(record.key, record);
    record.segment.liveBytes += record.bytes;
    this.#liveBytes += record.bytes;
    if (record.type !== "frontier") return;
    const siblings = this.#frontiersOf.get(record.parent) ?? new Set();
    this.#frontiersOf.set(record.parent, siblings.add(record));
  }

  /** Nothing happens when another record has taken its place. */
  remove(record: StoredRecord): void {
    const map = this.#mapOf(record.type);
    if (map?.get(record.key) !== record) return;
    map.delete(record.key);
    record.segment.liveBytes -= record.bytes;
    this.#liveBytes -= record.bytes;
    this.#isPruned = false;
    const siblings = this.#frontiersOf.get(record.parent);
    if (record.type !== "frontier" || !siblings?.delete(record)) return;
    if (siblings.size === 0) this.#frontiersOf.delete(record.parent);
  }

  use(record: StoredRecord): void {
    record.lastUse = this.nextUse();
  }

  nextUse(): number {
    return ++this.#uses;
  }

  recordsOf(segment: Segment): StoredRecord[] {
    return this.#all().flatMap((records) => [...records.values()].filter((record) => record.segment === segment));
  }

  /**
   * Removes frontiers that lost a block of their path, and blocks that lead to no frontier.
   */
  prune(): void {
    if (this.#isPruned) return;
    const isWhole = new Map<RecordKey, boolean>();
    const needed = new Set<StoredRecord>();
    for (const frontier of [...this.frontiers.values()]) {
      const path = this.#pathTo(frontier, isWhole);
      if (path === undefined) this.remove(frontier);
      else for (const block of path) needed.add(block);
    }
    for (const block of [...this.blocks.values()]) if (!needed.has(block)) this.remove(block);
    this.#isPruned = true;
  }

  /** Removes everything under the root of a namespace; returns the segments that held some of it. */
  removeRoot(root: RecordKey): Set<Segment> {
    const touched = new Set<Segment>();
    const known = new Map<RecordKey, boolean>([[root, true]]);
    const isUnder = (start: RecordKey): boolean => {
      const keys: RecordKey[] = [];
      let key = start;
      while (!known.has(key) && this.blocks.has(key)) {
        keys.push(key);
        key = this.blocks.get(key)!.parent;
      }
      const result = known.get(key) ?? false;
      for (const each of keys) known.set(each, result);
      return result;
    };
    for (const records of this.#all())
      for (const record of [...records.values()].filter(({ parent }) => isUnder(parent))) {
        touched.add(record.segment);
        this.remove(record);
      }
    return touched;
  }

  /** Blocks from a frontier up to one whose own way is known, or to the root; undefined when one is missing. */
  #pathTo(frontier: StoredRecord, isWhole: Map<RecordKey, boolean>): StoredRecord[] | undefined {
    const path: StoredRecord[] = [];
    let { parent } = frontier;
    let result = true;
    for (let blocks = Math.floor(frontier.position / blockTokens); blocks > 0; blocks--) {
      const known = isWhole.get(parent);
      if (known !== undefined) {
        result = known;
        break;
      }
      const block = this.blocks.get(parent);
      if (block === undefined || block.position !== blockTokens * blocks) {
        result = false;
        break;
      }
      path.push(block);
      ({ parent } = block);
    }
    for (const block of path) isWhole.set(block.key, result);
    return result ? path : undefined;
  }

  #all(): Map<RecordKey, StoredRecord>[] {
    return [this.blocks, this.frontiers, this.entries];
  }

  #mapOf(type: RecordType): Map<RecordKey, StoredRecord> | undefined {
    switch (type) {
      case "block":
        return this.blocks;
      case "frontier":
        return this.frontiers;
      case "toolmap":
      case "textindex":
        return this.entries;
      case "segment":
      case "tombstone":
      case "commit":
      case "footer":
      case "end":
        return undefined;
      default:
        return type satisfies never;
    }
  }
}
