/** Images in a prompt: the one placeholder token of each becomes the tokens of the image. */
import { RequestError } from "../../errors.ts";

/** `images`: in the order of their placeholders. Throws a RequestError (code "image-count") when their numbers differ. */
export function placeImages(
  tokenIds: readonly number[],
  imageTokenId: number,
  images: readonly { readonly tokenIds: readonly number[] }[],
): number[] {
  const placed: number[] = [];
  let places = 0;
  for (const id of tokenIds) {
    if (id !== imageTokenId) placed.push(id);
    else for (const imageId of images[places++]?.tokenIds ?? []) placed.push(imageId);
  }
  if (places === images.length) return placed;
  throw new RequestError(`The prompt has ${places} places for images, and ${images.length} images came with it`, {
    code: "image-count",
    hint: "Give as many images as the prompt has placeholders",
  });
}
