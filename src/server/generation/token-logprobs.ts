/**
 * Log probabilities lined up with the text that they belong to. Text is given out later than its tokens (ends that may become
 * a marker or a stop string wait); a token goes with the first text that shows its first character.
 */
import type { TokenLogprob } from "../../engine/batching/engine-port.ts";
import type { Tokenizer } from "../../tokenizer/tokenizer.ts";

/** A token as clients see it. */
export interface TokenText {
  /** Bytes that are no character by themselves show as U+FFFD. */
  readonly token: string;
  readonly bytes: readonly number[];
  readonly id: number;
  readonly logprob: number;
  readonly top: readonly Omit<TokenText, "top">[];
}

export function describeToken(tokenizer: Tokenizer, { id, logprob, top }: TokenLogprob): TokenText {
  const describe = (one: { id: number; logprob: number }) => {
    const bytes = tokenizer.tokenBytes(one.id);
    return { token: tokenizer.decode([one.id]), bytes: [...bytes], id: one.id, logprob: one.logprob };
  };
  return { ...describe({ id, logprob }), top: top.map(describe) };
}

/** The tokens of one section (reasoning or content) that wait for their text. */
export class WaitingTokens {
  readonly #dropsLeadingNewlines: boolean;
  readonly #waiting: { readonly start: number; readonly token: TokenText }[] = [];
  /** Characters of the section in the tokens so far, and in the text given out. */
  #read = 0;
  #shown = 0;

  constructor(dropsLeadingNewlines: boolean) {
    this.#dropsLeadingNewlines = dropsLeadingNewlines;
  }

  /** A token, and the text that it completed. */
  push(token: TokenText, text: string): void {
    const counted = this.#dropsLeadingNewlines && this.#read === 0 ? text.replace(/^\n+/, "") : text;
    this.#waiting.push({ start: this.#read, token });
    this.#read += counted.length;
  }

  /** The tokens whose text begins in what was given out up to now. */
  show(characters: number): TokenText[] {
    this.#shown += characters;
    const held = this.#waiting.findIndex(({ start }) => start >= this.#shown);
    return this.#waiting.splice(0, held < 0 ? this.#waiting.length : held).map(({ token }) => token);
  }
}
