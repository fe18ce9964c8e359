/** Content of a store whose right bytes follow from a seed: paths of blocks with their frontiers, and entries of a map. */
import type { KvStore, Put } from "../src/engine/store/kv-store.ts";
import type { NewRecord, RecordKey } from "../src/engine/store/record.ts";
import { encodeDescription } from "../src/engine/store/record-index.ts";
import { blockKey, entryKey, frontierKey, rootKey } from "../src/engine/store/record-keys.ts";
import { blockTokens } from "../src/tensor/paging.ts";
import { randomNumbers } from "./small-model.ts";

/** Bytes of a record, from a name. */
export function payloadOf(name: string, length: number): Uint8Array {
  const random = randomNumbers([...name].reduce((hash, c) => (Math.imul(hash, 31) + c.charCodeAt(0)) >>> 0, 7));
  return Uint8Array.from({ length }, () => Math.floor(random() * 256));
}

const bytesOfBlock = 700;

/** The tokens of conversation `c`. Every third one begins like the one before it. */
export function tokensOf(c: number, length: number): number[] {
  const own = randomNumbers(c + 1000);
  const shared = randomNumbers(c - (c % 3) + 1000);
  return Array.from({ length }, (_, t) => Math.floor((t < 2 * blockTokens ? shared() : own()) * 50_000));
}

export const root = rootKey("test");

/** The records of a conversation up to `length` tokens, in the order of the store. */
export function recordsOf(c: number, length: number): NewRecord[] {
  const tokens = tokensOf(c, length);
  const records: NewRecord[] = [];
  let parent = root;
  const whole = Math.floor(length / blockTokens);
  for (let block = 0; block < whole; block++) {
    const key = blockKey(parent, tokens, block * blockTokens, blockTokens);
    const description = encodeDescription({ parent, position: (block + 1) * blockTokens });
    records.push({ type: "block", key, description, payload: payloadOf(key, bytesOfBlock) });
    parent = key;
  }
  const tail = tokens.slice(whole * blockTokens);
  const key = frontierKey(parent, tokens, whole * blockTokens, tail.length);
  const description = encodeDescription({ parent, position: length, tail });
  records.push({ type: "frontier", key, description, payload: payloadOf(key, 300 + (length % 200)) });
  return records;
}

/** Versions of the writers that are killed are large now and then: a kill then falls into a write. */
function lengthOf(version: number): number {
  return 50 + (version % 400) + (version >= 100_000 && version % 4 === 0 ? 300_000 : 0);
}

export function entryOf(id: string, version: number): NewRecord {
  const payload = Buffer.concat([Buffer.from(`${version}\n`), payloadOf(`${id} ${version}`, lengthOf(version))]);
  return {
    type: "toolmap",
    key: entryKey(root, id),
    description: encodeDescription({ parent: root, position: 0 }),
    payload,
  };
}

export async function putConversation(store: KvStore, put: Put, c: number, length: number): Promise<void> {
  for (const record of recordsOf(c, length)) {
    const isThere = record.type === "block" && store.index.blocks.has(record.key);
    if (!isThere) await put(record);
  }
}

/** Whether all of a conversation is there and right. Throws when something is there and wrong. */
export async function hasConversation(store: KvStore, c: number, length: number): Promise<boolean> {
  let isWhole = true;
  for (const { type, key, payload } of recordsOf(c, length)) {
    const found = store.index.get({ type, key });
    const bytes = found && (await store.read(found));
    if (bytes === undefined) isWhole = false;
    else if (!Buffer.from(bytes).equals(payload!)) throw new Error(`A ${type} of conversation ${c} has wrong bytes`);
  }
  return isWhole;
}

/** The version of an entry that is there. Throws when its bytes are wrong. */
export async function versionOf(store: KvStore, id: string): Promise<number | undefined> {
  const found = store.index.entries.get(entryKey(root, id));
  const bytes = found && (await store.read(found));
  if (bytes === undefined) return undefined;
  const version = Number.parseInt(Buffer.from(bytes).toString("latin1"), 10);
  if (!Buffer.from(bytes).equals(Buffer.from(entryOf(id, version).payload!)))
    throw new Error(`Entry ${id} has wrong bytes`);
  return version;
}

/** Every record whose bytes can be read, by key. */
export async function readableRecords(store: KvStore): Promise<Map<RecordKey, Buffer>> {
  const found = new Map<RecordKey, Buffer>();
  const { blocks, frontiers, entries } = store.index;
  for (const record of [...blocks.values(), ...frontiers.values(), ...entries.values()]) {
    const bytes = await store.read(record);
    if (bytes !== undefined) found.set(`${record.type} ${record.key}`, Buffer.from(bytes));
  }
  return found;
}
