/** Responses that later requests may refer to, for as long as there is room: the oldest are forgotten first. */
import { type Json, JsonObject } from "../../../json/parse-json.ts";
import type { ResponseObject } from "../schemas/responses.ts";

export interface StoredResponse {
  readonly response: ResponseObject;
  /** What this request added; what came before is in the responses that `previous_response_id` leads to. */
  readonly input: readonly Json[];
  readonly output: readonly Json[];
  readonly previousId: string | undefined;
}

const defaultMaxCharacters = 64 * 1024 * 1024;

export class ResponseStore {
  readonly #stored = new Map<string, { readonly value: StoredResponse; readonly size: number }>();
  readonly #maxCharacters: number;
  #characters = 0;

  constructor(maxCharacters = defaultMaxCharacters) {
    this.#maxCharacters = maxCharacters;
  }

  /** `size` is that of the request's body and of the answer, in characters. */
  put(namespace: string, value: StoredResponse, size: number): void {
    const name = fullKey(namespace, value.response.id);
    this.#stored.set(name, { value, size });
    this.#characters += size;
    for (const oldest of this.#stored.keys()) {
      if (this.#characters <= this.#maxCharacters) break;
      this.#forget(oldest);
    }
  }

  get(namespace: string, id: string): StoredResponse | undefined {
    return this.#stored.get(fullKey(namespace, id))?.value;
  }

  delete(namespace: string, id: string): boolean {
    return this.#forget(fullKey(namespace, id));
  }

  /** All items up to and with a response; undefined when a link of the chain is missing. */
  history(namespace: string, id: string): Json[] | undefined {
    const turns: StoredResponse[] = [];
    for (let next: string | undefined = id; next !== undefined; ) {
      const stored = this.get(namespace, next);
      if (stored === undefined) return undefined;
      turns.push(stored);
      next = stored.previousId;
    }
    return turns.reverse().flatMap(({ input, output }) => [...input, ...output]);
  }

  /** One item of an answer that is kept: its id holds that of its response. */
  item(namespace: string, id: string): Json | undefined {
    const [, requestId] = /^[a-z]+_(.+)_\d+$/.exec(id) ?? [];
    if (requestId === undefined) return undefined;
    const stored = this.get(namespace, `resp_${requestId}`);
    return stored?.output.find((item) => item instanceof JsonObject && item.get("id") === id);
  }

  #forget(name: string): boolean {
    const stored = this.#stored.get(name);
    this.#characters -= stored?.size ?? 0;
    return this.#stored.delete(name);
  }
}

function fullKey(namespace: string, id: string): string {
  return `${namespace.length}:${namespace}${id}`;
}
