/**
 * A turn memory that outlives the server: after a restart the first request of a conversation is rendered as it was before, so that
 * what the prefix cache kept on disk fits it. Without a disk it forgets when the process ends.
 */
import { DurableMap } from "../../engine/cache/durable-map.ts";
import { KvStore } from "../../engine/store/kv-store.ts";
import type { RememberedTurn, TurnMemory } from "./turn-memory.ts";

const mostBytes = 64 << 20;

export class StoredTurnMemory implements TurnMemory {
  readonly #store: KvStore;
  readonly #turns: DurableMap;

  private constructor(store: KvStore) {
    this.#store = store;
    this.#turns = new DurableMap(store, { type: "toolmap", mostBytes });
  }

  /** Never throws for what it finds in the directory. */
  static async open(directory: string): Promise<StoredTurnMemory> {
    const now = () => performance.now();
    return new StoredTurnMemory(await KvStore.open({ directory, budgetBytes: 4 * mostBytes, now }));
  }

  /** Why nothing is kept on disk; empty when it is. */
  get reason(): string {
    return this.#store.reason;
  }

  async get(namespace: string, key: string): Promise<RememberedTurn | undefined> {
    const bytes = await this.#turns.get(namespace, key);
    // Records are checked when they are read: what comes back is what was put.
    return bytes === undefined ? undefined : (JSON.parse(new TextDecoder().decode(bytes)) as RememberedTurn);
  }

  put(namespace: string, key: string, turn: RememberedTurn): void {
    this.#turns.put(namespace, key, new TextEncoder().encode(JSON.stringify(turn)));
  }

  async close(): Promise<void> {
    await this.#turns.flush();
    await this.#store.close();
  }
}
