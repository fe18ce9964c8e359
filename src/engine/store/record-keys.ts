/**
 * Keys of records. A block's names everything that its content depends on: the root of its namespace (model, format, arithmetic,
 * tenant) and every token up to its end
 *   key(block b) = SHA-256(key(block b - 1), its 128 tokens)
 * so that equal keys are equal content, and what one namespace wrote no other one can find.
 */
import { createHash } from "node:crypto";
import { keyBytes, type RecordKey } from "./record.ts";

/** The key that stands for a list of names. */
export function rootKey(...names: readonly string[]): RecordKey {
  return digest("root", JSON.stringify(names));
}

export function blockKey(parent: RecordKey, tokenIds: ArrayLike<number>, first: number, count: number): RecordKey {
  return digest("block", Buffer.from(parent, "latin1"), tokenBytes(tokenIds, first, count));
}

/** Of the state behind a block and some more tokens. */
export function frontierKey(parent: RecordKey, tokenIds: ArrayLike<number>, first: number, count: number): RecordKey {
  return digest("frontier", Buffer.from(parent, "latin1"), tokenBytes(tokenIds, first, count));
}

export function entryKey(root: RecordKey, id: string): RecordKey {
  return digest("entry", Buffer.from(root, "latin1"), id);
}

function digest(kind: string, ...parts: readonly (string | Uint8Array)[]): RecordKey {
  const hash = createHash("sha256").update(`${kind}\n`);
  for (const part of parts) hash.update(part);
  return hash.digest().toString("latin1", 0, keyBytes);
}

function tokenBytes(tokenIds: ArrayLike<number>, first: number, count: number): Uint8Array {
  const bytes = Buffer.allocUnsafe(4 * count);
  for (let i = 0; i < count; i++) bytes.writeUInt32LE(tokenIds[first + i]!, 4 * i);
  return bytes;
}
