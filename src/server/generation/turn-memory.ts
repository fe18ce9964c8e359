/**
 * What the server remembers of its own answers, so that clients need not send everything back: the reasoning of a turn, and the
 * bytes that the model wrote. Agents drop reasoning and re-serialise arguments; a prompt rendered from what they send would
 * differ from what was computed, and each turn would be computed anew.
 */
import type { PromptPart } from "../../chat/prompt.ts";

export interface RememberedTurn {
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

/** Plain data under a key: the id of a call, or a digest of a turn without calls. Nothing is shared between namespaces. */
export interface TurnMemory {
  get(namespace: string, key: string): RememberedTurn | undefined | Promise<RememberedTurn | undefined>;
  put(namespace: string, key: string, turn: RememberedTurn): void;
}

const defaultMaxCharacters = 64 * 1024 * 1024;

/** A turn memory that forgets what was not asked for the longest. */
export class BoundedTurnMemory implements TurnMemory {
  readonly #turns = new Map<string, { readonly turn: RememberedTurn; readonly size: number }>();
  readonly #maxCharacters: number;
  #characters = 0;

  constructor(maxCharacters = defaultMaxCharacters) {
    this.#maxCharacters = maxCharacters;
  }

  get(namespace: string, key: string): RememberedTurn | undefined {
    const name = fullKey(namespace, key);
    const found = this.#turns.get(name);
    if (found === undefined) return undefined;
    this.#turns.delete(name);
    this.#turns.set(name, found); // the youngest is the last
    return found.turn;
  }

  put(namespace: string, key: string, turn: RememberedTurn): void {
    const name = fullKey(namespace, key);
    this.#forget(name);
    const size = name.length + sizeOf(turn);
    if (size > this.#maxCharacters) return;
    this.#turns.set(name, { turn, size });
    this.#characters += size;
    for (const oldest of this.#turns.keys()) {
      if (this.#characters <= this.#maxCharacters) break;
      this.#forget(oldest);
    }
  }

  /** Characters of text that are kept. */
  get characters(): number {
    return this.#characters;
  }

  #forget(name: string): void {
    this.#characters -= this.#turns.get(name)?.size ?? 0;
    this.#turns.delete(name);
  }
}

function fullKey(namespace: string, key: string): string {
  return `${namespace.length}:${namespace}${key}`;
}

function sizeOf({ reasoning, content, calls, verbatim }: RememberedTurn): number {
  const ofCalls = calls.reduce((sum, call) => sum + call.id.length + call.name.length + call.arguments.length, 0);
  const ofParts = (verbatim ?? []).reduce(
    (sum, part) => sum + ("text" in part ? part.text.length : part.special.length),
    0,
  );
  return 256 + reasoning.length + content.length + ofCalls + ofParts;
}
