/**
 * A small map from ids to bytes that survives a restart, for what a gateway must give back exactly: the sampled text of tool calls and
 * reasoning, the tokens of an answer. Bounded: what was asked for or put longest ago goes first. Values that are put at the same time
 * share one write; without a disk the map is one in memory.
 */
import type { KvStore } from "../store/kv-store.ts";
import type { NewRecord, RecordKey } from "../store/record.ts";
import { encodeDescription } from "../store/record-index.ts";
import { entryKey, rootKey } from "../store/record-keys.ts";
import { trimEntries } from "../store/space.ts";

export interface DurableMapOptions {
  /** Bytes of values that stay in memory, and on disk. */
  readonly mostBytes: number;
  readonly type: "toolmap" | "textindex";
}

export class DurableMap {
  readonly #store: KvStore | undefined;
  readonly #options: DurableMapOptions;
  /** Those used longest ago first. */
  readonly #values = new Map<RecordKey, { readonly value: Uint8Array; readonly root: RecordKey }>();
  /** A prompt asks for many entries of one namespace. */
  #lastRoot: { readonly namespace: string; readonly key: RecordKey } | undefined;
  #bytes = 0;
  #waiting: NewRecord[] = [];
  #writing: Promise<unknown> | undefined;

  constructor(store: KvStore | undefined, options: DurableMapOptions) {
    this.#store = store;
    this.#options = options;
    // What was forgotten stands in the files until they are collected, and is found by who opens them.
    if (store !== undefined) trimEntries(store.index, options.type, options.mostBytes);
  }

  async get(namespace: string, id: string): Promise<Uint8Array | undefined> {
    const key = entryKey(this.root(namespace), id);
    const record = this.#store?.index.entries.get(key);
    if (record !== undefined) this.#store!.index.use(record);
    const known = this.#values.get(key);
    if (known !== undefined) {
      this.#values.delete(key);
      this.#values.set(key, known);
      return known.value;
    }
    if (record === undefined) return undefined;
    const value = await this.#store!.read(record);
    // What was put meanwhile is newer than what was read.
    if (value !== undefined && !this.#values.has(key)) this.#keep(key, this.root(namespace), value);
    return this.#values.get(key)?.value;
  }

  /** A value longer than an eighth of the bound is not kept. */
  put(namespace: string, id: string, value: Uint8Array): void {
    if (value.length > this.#options.mostBytes / 8) return;
    const root = this.root(namespace);
    const key = entryKey(root, id);
    const copy = value.slice();
    this.#keep(key, root, copy);
    if (this.#store === undefined) return;
    const description = encodeDescription({ parent: root, position: 0 });
    this.#waiting.push({ type: this.#options.type, key, description, payload: copy });
    this.#writing ??= this.#writeAll(this.#store);
  }

  async flush(): Promise<void> {
    while (this.#writing !== undefined) await this.#writing;
  }

  /** The root of what a namespace put, to forget it in the store. */
  root(namespace: string): RecordKey {
    if (this.#lastRoot?.namespace !== namespace)
      this.#lastRoot = { namespace, key: rootKey("freehold map 1", this.#options.type, namespace) };
    return this.#lastRoot.key;
  }

  forget(namespace: string): void {
    const root = this.root(namespace);
    for (const [key, entry] of this.#values) if (entry.root === root) this.#remove(key);
  }

  #keep(key: RecordKey, root: RecordKey, value: Uint8Array): void {
    this.#remove(key);
    this.#values.set(key, { value, root });
    this.#bytes += value.length;
    for (const oldest of this.#values.keys()) {
      if (this.#bytes <= this.#options.mostBytes) return;
      this.#remove(oldest);
    }
  }

  #remove(key: RecordKey): void {
    this.#bytes -= this.#values.get(key)?.value.length ?? 0;
    this.#values.delete(key);
  }

  async #writeAll(store: KvStore): Promise<void> {
    while (this.#waiting.length > 0) {
      const records = this.#waiting.splice(0);
      await store.group(async (put) => {
        for (const record of records) await put(record);
      });
      trimEntries(store.index, this.#options.type, this.#options.mostBytes);
    }
    this.#writing = undefined;
  }
}
