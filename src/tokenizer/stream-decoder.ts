/**
 * Token ids to text as they come. A piece never ends within a character: only the bytes of an unfinished one that can still
 * become valid are held back; `end` gives what is left, one U+FFFD for an unfinished character.
 */
import type { Tokenizer } from "./tokenizer.ts";

export class StreamDecoder {
  readonly #tokenizer: Tokenizer;
  readonly #skipSpecialTokens: boolean;
  // A leading byte order mark is text like any other.
  readonly #decoder = new TextDecoder("utf-8", { ignoreBOM: true });

  constructor(tokenizer: Tokenizer, skipSpecialTokens: boolean) {
    this.#tokenizer = tokenizer;
    this.#skipSpecialTokens = skipSpecialTokens;
  }

  push(id: number): string {
    if (this.#skipSpecialTokens && this.#tokenizer.isSpecial(id)) return "";
    return this.#decoder.decode(this.#tokenizer.tokenBytes(id), { stream: true });
  }

  end(): string {
    return this.#decoder.decode();
  }
}
