/**
 * Images in a prompt: the one placeholder token of each becomes as many tokens as its rows, all with the same id. Where they
 * stand, the rows of the image replace the embeddings; the router has another bias, and n-grams end.
 */
import { RequestError } from "../../errors.ts";

/** Positions of one image in a prompt. */
export interface ImageSpan {
  /** Position of its first token. */
  readonly start: number;
  readonly tokens: number;
}

export interface PlacedImages {
  readonly tokenIds: readonly number[];
  /** One an image, in their order. */
  readonly spans: readonly ImageSpan[];
}

/** `images`: in the order of their placeholders. Throws a RequestError (code "image-count") when their numbers differ. */
export function placeImages(
  tokenIds: readonly number[],
  imageTokenId: number,
  images: readonly { readonly tokens: number }[],
): PlacedImages {
  const placed: number[] = [];
  const spans: ImageSpan[] = [];
  for (const id of tokenIds) {
    if (id !== imageTokenId) {
      placed.push(id);
      continue;
    }
    const tokens = images[spans.length]?.tokens ?? 1;
    spans.push({ start: placed.length, tokens });
    for (let i = 0; i < tokens; i++) placed.push(id);
  }
  if (spans.length === images.length) return { tokenIds: placed, spans };
  throw new RequestError(`The prompt has ${spans.length} places for images, and ${images.length} images came with it`, {
    code: "image-count",
    hint: "Give as many images as the prompt has placeholders",
  });
}
