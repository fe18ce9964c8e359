/**
 * A prompt is a list of parts: special tokens, and plain text between them. Only the renderer puts special tokens in; a text
 * that spells one stays text, since each maximal stretch of text is tokenised by itself, without special tokens.
 */
import { RequestError } from "../errors.ts";
import type { ParseOptions } from "./output-parser.ts";

export type PromptPart = { readonly special: string } | { readonly text: string };

export interface Prompt {
  readonly parts: readonly PromptPart[];
  /** All parts, one after another. */
  readonly text: string;
  /** Where the special tokens stand in `text`: [start, end) in UTF-16 units. */
  readonly specialRanges: readonly (readonly [number, number])[];
  /** The images that the prompt's placeholders stand for, in their order. */
  readonly images: readonly string[];
  /** How the answer to this prompt is to be read. */
  readonly parse: ParseOptions;
}

/** Collects parts; neighbouring texts become one. */
export class PromptBuilder {
  readonly #parts: PromptPart[] = [];
  readonly #ranges: [number, number][] = [];
  readonly images: string[] = [];
  #text = "";

  special(content: string): this {
    this.#ranges.push([this.#text.length, this.#text.length + content.length]);
    this.#text += content;
    this.#parts.push({ special: content });
    return this;
  }

  text(text: string): this {
    if (text === "") return this;
    const last = this.#parts.at(-1);
    if (last !== undefined && "text" in last) this.#parts[this.#parts.length - 1] = { text: last.text + text };
    else this.#parts.push({ text });
    this.#text += text;
    return this;
  }

  append(parts: readonly PromptPart[]): this {
    for (const part of parts) {
      if ("text" in part) this.text(part.text);
      else this.special(part.special);
    }
    return this;
  }

  /** Text in which the given spellings are special tokens. */
  mixed(text: string, spellings: readonly string[]): this {
    // Making the pattern costs more than a usual text.
    if (!spellings.some((spelling) => text.includes(spelling))) return this.text(text);
    const pattern = new RegExp(
      spellings.map((spelling) => spelling.replaceAll(/[|()[\]{}^$*+?.\\/]/g, "\\$&")).join("|"),
      "g",
    );
    let done = 0;
    for (const match of text.matchAll(pattern)) {
      this.text(text.slice(done, match.index)).special(match[0]);
      done = match.index + match[0].length;
    }
    return this.text(text.slice(done));
  }

  build(parse: ParseOptions): Prompt {
    return { parts: this.#parts, text: this.#text, specialRanges: this.#ranges, images: this.images, parse };
  }
}

/** What is needed of a tokenizer to encode a prompt. */
export interface PromptTokenizer {
  encode(text: string): number[];
  tokenId(content: string): number | undefined;
}

/** Token ids of a prompt. Throws a RequestError when the tokenizer lacks one of its special tokens. */
export function encodePrompt({ parts }: Pick<Prompt, "parts">, tokenizer: PromptTokenizer): number[] {
  const ids: number[] = [];
  for (const part of parts) for (const id of encodePart(part, tokenizer)) ids.push(id);
  return ids;
}

/** Of one part: what it is does not depend on its neighbours. */
export function encodePart(part: PromptPart, tokenizer: PromptTokenizer): number[] {
  if ("text" in part) return tokenizer.encode(part.text);
  const id = tokenizer.tokenId(part.special);
  if (id !== undefined) return [id];
  throw new RequestError(`The tokenizer has no token ${part.special}`, {
    code: "no-token",
    hint: "The prompt format is that of DeepSeek V4 or V4.1; this tokenizer belongs to another model",
  });
}
