/** Images in a prompt: the one placeholder token of each becomes the tokens of the image. */
import { RequestError } from "../../errors.ts";

interface PlacedImage {
  readonly tokenIds: readonly number[];
}

/** For a prompt that is read token by token. `images`: in the order of their placeholders. */
export class ImagePlaces {
  readonly #imageTokenId: number;
  readonly #images: readonly PlacedImage[];
  #places = 0;

  constructor(imageTokenId: number, images: readonly PlacedImage[]) {
    this.#imageTokenId = imageTokenId;
    this.#images = images;
  }

  /** What stands for the next token of the prompt. */
  tokensOf(id: number): readonly number[] {
    return id === this.#imageTokenId ? (this.#images[this.#places++]?.tokenIds ?? []) : [id];
  }

  /** The prompt is read. Throws a RequestError (code "image-count") when its places and the images differ in number. */
  end(): void {
    if (this.#places === this.#images.length) return;
    throw new RequestError(
      `The prompt has ${this.#places} places for images, and ${this.#images.length} images came with it`,
      { code: "image-count", hint: "Give as many images as the prompt has placeholders" },
    );
  }
}

/** The whole of it at once. */
export function placeImages(
  tokenIds: readonly number[],
  imageTokenId: number,
  images: readonly PlacedImage[],
): number[] {
  const places = new ImagePlaces(imageTokenId, images);
  const placed: number[] = [];
  for (const id of tokenIds) for (const placedId of places.tokensOf(id)) placed.push(placedId);
  places.end();
  return placed;
}
