/** Texts and prompts as token ids, and back: a long one leaves room for other requests. */
import { encodePart, type PromptPart } from "../../chat/prompt.ts";
import type { Pacer } from "../../engine/pacer.ts";
import type { EncodeOptions, Tokenizer } from "../../tokenizer/tokenizer.ts";

/** Throws a RequestError for a stretch of more than 262,144 characters without a word's end. */
export async function encodeText(
  text: string,
  tokenizer: Tokenizer,
  pacer: Pacer,
  options: EncodeOptions = {},
): Promise<number[]> {
  const ids: number[] = [];
  for (const slice of tokenizer.encodeInSlices(text, options)) {
    for (const id of slice) ids.push(id);
    await pacer.pause();
  }
  return ids;
}

export async function encodeParts(parts: readonly PromptPart[], tokenizer: Tokenizer, pacer: Pacer): Promise<number[]> {
  const ids: number[] = [];
  for (const part of parts) {
    const added = "text" in part ? await encodeText(part.text, tokenizer, pacer) : encodePart(part, tokenizer);
    for (const id of added) ids.push(id);
  }
  return ids;
}

/** Tokens that are looked at before a pause: a millisecond or two. */
const tokensAtOnce = 4096;

export async function decodeText(ids: readonly number[], tokenizer: Tokenizer, pacer: Pacer): Promise<string> {
  const decoder = tokenizer.createDecoder();
  const pieces = await mapTokens(ids, pacer, (id) => decoder.push(id));
  return pieces.join("") + decoder.end();
}

export async function mapTokens<Result>(
  ids: readonly number[],
  pacer: Pacer,
  each: (id: number) => Result,
): Promise<Result[]> {
  const results: Result[] = [];
  for (const id of ids) {
    results.push(each(id));
    if (results.length % tokensAtOnce === 0) await pacer.pause();
  }
  return results;
}
