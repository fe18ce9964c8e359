/**
 * What the server remembers of its own answers, so that clients need not send everything back: the reasoning of a turn, and the
 * bytes that the model wrote. Agents drop reasoning and re-serialise arguments; a prompt rendered from what they send would
 * differ from what was computed, and each turn would be computed anew.
 */
import type { PromptPart } from "../../chat/prompt.ts";
import type { DurableMap } from "../../engine/cache/durable-map.ts";

export interface RememberedTurn {
  /** As it was written, with the newlines around it. */
  readonly reasoning: string;
  readonly content: string;
  readonly calls: readonly RememberedCall[];
  /** All that the model wrote behind its reasoning; undefined when the answer was cut or repaired. */
  readonly verbatim?: readonly PromptPart[];
}

export interface RememberedCall {
  readonly id: string;
  readonly name: string;
  /** JSON text, as it was sent to the client. */
  readonly arguments: string;
}

/** Turns under the id of a call, or a digest of a turn without calls. Nothing is shared between namespaces. */
export class TurnMemory {
  readonly #map: DurableMap;

  constructor(map: DurableMap) {
    this.#map = map;
  }

  async get(namespace: string, key: string): Promise<RememberedTurn | undefined> {
    const bytes = await this.#map.get(namespace, key);
    // Records are checked when they are read: what comes back is what was put.
    return bytes === undefined ? undefined : (JSON.parse(new TextDecoder().decode(bytes)) as RememberedTurn);
  }

  put(namespace: string, key: string, turn: RememberedTurn): void {
    this.#map.put(namespace, key, new TextEncoder().encode(JSON.stringify(turn)));
  }
}
