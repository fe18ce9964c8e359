/**
 * What the gateway remembers of conversations: turns as they were generated, and how their text was tokenised. With a directory both
 * outlive the server, in one log: after a restart the first request of a conversation is encoded as it was before, so that what the
 * prefix cache kept on disk fits it. Without one, or without a usable disk, it forgets when the process ends.
 */
import { DurableMap } from "../../engine/cache/durable-map.ts";
import { KvStore } from "../../engine/store/kv-store.ts";
import { TokenHistory } from "./token-history.ts";
import { TurnMemory } from "./turn-memory.ts";

/** Of each of the two. */
const defaultMostBytes = 64 << 20;

export class ConversationMemory {
  readonly turns: TurnMemory;
  readonly tokens: TokenHistory;
  readonly #store: KvStore | undefined;
  readonly #maps: readonly DurableMap[];

  private constructor(store: KvStore | undefined, mostBytes: number) {
    const turns = new DurableMap(store, { type: "toolmap", mostBytes });
    const tokens = new DurableMap(store, { type: "textindex", mostBytes });
    this.turns = new TurnMemory(turns);
    this.tokens = new TokenHistory(tokens);
    this.#store = store;
    this.#maps = [turns, tokens];
  }

  static inMemory(mostBytes = defaultMostBytes): ConversationMemory {
    return new ConversationMemory(undefined, mostBytes);
  }

  /** Never throws for what it finds in the directory. */
  static async open(directory: string, mostBytes = defaultMostBytes): Promise<ConversationMemory> {
    const now = () => performance.now();
    const store = await KvStore.open({ directory, budgetBytes: 5 * mostBytes, now });
    return new ConversationMemory(store, mostBytes);
  }

  /** Why nothing is kept on disk; empty when it is. */
  get reason(): string {
    return this.#store?.reason ?? "";
  }

  async close(): Promise<void> {
    for (const map of this.#maps) await map.flush();
    await this.#store?.close();
  }
}
