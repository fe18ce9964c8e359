/** The inputs of a step that concern images: the rows that its tokens take from them, and which token takes which. */
import { RequestError } from "../../errors.ts";
import { imageRowOfInput, imageRowsInput } from "../../model/image-rows.ts";
import { imageName, isContentId, isFirstOfImage } from "./content-ids.ts";

/** The rows of images, [tokens, hiddenSize] each, by their names (content-ids.ts). */
export type ImageRows = ReadonlyMap<string, Float32Array>;

/** New tokens of a sequence, all that are before them, and what is known of the sequence's images. */
export interface ImagePart {
  readonly before: readonly number[];
  readonly tokenIds: readonly number[];
  readonly images: ImageRows;
}

/** Throws a RequestError (code "image-lost") for tokens of an image whose rows are not there. */
export function stepImages(parts: readonly ImagePart[], hiddenSize: number) {
  const rowOf: number[] = [];
  const taken: Float32Array[] = [];
  for (const part of parts) {
    for (const row of rowsOf(part, hiddenSize)) {
      rowOf.push(row === undefined ? -1 : taken.length);
      if (row !== undefined) taken.push(row);
    }
  }
  const rows = new Float32Array(taken.length * hiddenSize);
  for (const [i, row] of taken.entries()) rows.set(row, i * hiddenSize);
  return {
    sizes: { imageRows: taken.length },
    inputs: { [imageRowsInput]: rows, [imageRowOfInput]: Int32Array.from(rowOf) },
  };
}

/** The row of each new token; undefined for text. An image may have begun in an earlier step. */
function* rowsOf({ before, tokenIds, images }: ImagePart, hiddenSize: number): Iterable<Float32Array | undefined> {
  let next = 0;
  let rows: Float32Array | undefined;
  for (const [i, id] of tokenIds.entries()) {
    if (!isContentId(id)) {
      rows = undefined;
      yield undefined;
      continue;
    }
    if (rows === undefined || isFirstOfImage(id)) {
      const begun = isFirstOfImage(id) ? [] : openImage(before);
      rows = findRows(images, [...begun, ...tokenIds.slice(i)]);
      next = begun.length;
    }
    const row = rows.subarray(next * hiddenSize, ++next * hiddenSize);
    if (row.length < hiddenSize) throw lost();
    yield row;
  }
}

/** The tokens at the end of a sequence that belong to an image which may go on. */
function openImage(tokenIds: readonly number[]): readonly number[] {
  let start = tokenIds.length - 1;
  while (start > 0 && !isFirstOfImage(tokenIds[start]!)) start--;
  return tokenIds.slice(Math.max(start, 0));
}

/**
 * The image that begins with these ids, which may be fewer than its name has when a step ends inside the name. What they leave open
 * makes no difference: all images have the same first row, and two ids of one image tell it from the others.
 */
function findRows(images: ImageRows, ids: readonly number[]): Float32Array {
  const name = `${imageName(ids)} `;
  for (const [known, rows] of images) if (`${known} `.startsWith(name)) return rows;
  throw lost();
}

function lost(): RequestError {
  return new RequestError("The sequence has an image that is not there any more", {
    code: "image-lost",
    hint: "Send the prompt with its images again",
  });
}
