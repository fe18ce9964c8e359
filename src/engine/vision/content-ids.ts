/**
 * The tokens of an image in a sequence. In the vocabulary all of them have one id, which does not say what is to be seen. Whatever
 * remembers what was computed knows a sequence by its ids alone: sessions, the prefix cache, the blocks on disk. In a sequence the
 * tokens of an image therefore have ids of their own, beyond every vocabulary and made of the image's key: the same image gives the
 * same ids, another one others, and nothing else needs to know. Where the model reads a token, `vocabularyId` puts the one id back.
 *
 * Such an id is 2^30, 2^29 at the first token of an image, and 29 bits of the key: eight tokens tell 232 bits of it, and an image
 * has at least four.
 */

/** Vocabularies end far below. */
const base = 2 ** 30;
const first = 2 ** 29;
const bitsOfId = 29n;
const idsOfKey = 8;
/** Tokens of the smallest image: start, cell, line end, end. */
export const fewestImageTokens = 4;

/** `key`: 64 hexadecimal digits. */
export function contentIds(key: string, tokens: number): number[] {
  const bits = BigInt(`0x${key}`);
  const words = Array.from({ length: idsOfKey }, (_, i) => Number(BigInt.asUintN(29, bits >> (BigInt(i) * bitsOfId))));
  return Array.from({ length: tokens }, (_, i) => base + (i === 0 ? first : 0) + words[i % idsOfKey]!);
}

/** Whether an id stands for part of an image. */
export function isContentId(id: number): boolean {
  return id >= base;
}

/** Whether it stands for the beginning of one. */
export function isFirstOfImage(id: number): boolean {
  return id >= base + first;
}

/** The id that the model reads. */
export function vocabularyId(id: number, imageTokenId: number): number {
  return isContentId(id) ? imageTokenId : id;
}

/** An image in a sequence. */
export interface ImageSpan {
  /** What tells it from other images. */
  readonly name: string;
  readonly start: number;
  readonly end: number;
}

/** The images of a sequence in their order, from its first token on. */
export function imageSpans(tokenIds: readonly number[]): ImageSpan[] {
  const spans: ImageSpan[] = [];
  for (let start = 0; start < tokenIds.length; start++) {
    if (!isFirstOfImage(tokenIds[start]!)) continue;
    let end = start + 1;
    while (end < tokenIds.length && isContentId(tokenIds[end]!) && !isFirstOfImage(tokenIds[end]!)) end++;
    spans.push({ name: imageName(tokenIds, start), start, end });
    start = end - 1;
  }
  return spans;
}

/** The name of the image that begins at a place of a list of ids. */
export function imageName(tokenIds: readonly number[], start = 0): string {
  return tokenIds.slice(start, start + fewestImageTokens).join(" ");
}
