/**
 * The images of a model's prompts: from files to tokens at once, from tokens to rows when a sequence needs them. Pixels wait on a
 * shelf in between, and rows stay for a while, for the next turn of a conversation has the same images; both within a bound.
 */
import type { Device } from "../../device/device.ts";
import { RequestError } from "../../errors.ts";
import { defaultImageLimits, type ImageLimits } from "../../media/image-reader.ts";
import type { VisionConfig } from "../../model/vision/config.ts";
import { contentIds, imageName, imageSpans } from "./content-ids.ts";
import { ImageEncoder, type PreparedImage } from "./image-encoder.ts";
import type { ImageRows } from "./step-images.ts";

/** An image of a prompt: the bytes of a PNG, JPEG, WebP or GIF file, or a base64 data: URL. */
export type ImageSource = Uint8Array | string;

/** An image that is ready to take its place in a prompt. */
export interface PromptImage {
  /** Its tokens in a sequence; they name its content. */
  readonly tokenIds: readonly number[];
}

/** Pixels of an image of 1,024 tokens are 5.4 MB at the published sizes, its rows 21 MB. */
const shelfBytes = 512 << 20;
const keptRowsBytes = 256 << 20;

export class ModelImages implements Disposable {
  readonly config: VisionConfig;
  /** Bytes of a file at most. */
  readonly maxBytes: number;
  readonly #encoder: ImageEncoder;
  readonly #shelf = new RecentlyUsed<PreparedImage>(shelfBytes);
  readonly #rows = new RecentlyUsed<Float32Array>(keptRowsBytes);
  /** Being computed: requests with the same image wait for one tower. */
  readonly #computing = new Map<string, Promise<Float32Array>>();

  /** The device must hold the weights of the vision part. */
  constructor(config: VisionConfig, device: Device, limits: Partial<ImageLimits> = {}) {
    this.config = config;
    this.maxBytes = limits.maxBytes ?? defaultImageLimits.maxBytes;
    this.#encoder = new ImageEncoder(config, device, limits);
    this.#encoder.warm();
  }

  /** Decodes an image and fits it; nothing is computed yet. Throws a MediaError. */
  async prepare(source: ImageSource, options: { signal?: AbortSignal } = {}): Promise<PromptImage> {
    const image = await this.#encoder.prepare(source, options);
    const tokenIds = contentIds(image.key, image.plan.tokens);
    this.#shelf.put(imageName(tokenIds), image, image.pixels.data.length);
    return { tokenIds };
  }

  /**
   * The rows of the images in a sequence that end behind its first `from` tokens. Throws a RequestError (code "image-lost") for one
   * that was prepared too long ago.
   */
  async rowsOf(tokenIds: readonly number[], from = 0): Promise<ImageRows> {
    const rows = new Map<string, Float32Array>();
    for (const { name, end } of imageSpans(tokenIds)) if (end > from) rows.set(name, await this.#rowsOf(name));
    return rows;
  }

  /** The images that the tower computed. */
  computed = 0;

  /** Grows while the tower computes. */
  get steps(): number {
    return this.#encoder.steps;
  }

  #rowsOf(name: string): Promise<Float32Array> {
    const known = this.#rows.get(name);
    if (known !== undefined) return Promise.resolve(known);
    const computing = this.#computing.get(name) ?? this.#compute(name).finally(() => this.#computing.delete(name));
    this.#computing.set(name, computing);
    return computing;
  }

  async #compute(name: string): Promise<Float32Array> {
    const image = this.#shelf.get(name);
    if (image === undefined) {
      throw new RequestError("An image of the prompt is not there any more", {
        code: "image-lost",
        hint: "Send the prompt with its images again",
      });
    }
    const { rows } = await this.#encoder.imageRows(image);
    this.computed++;
    this.#rows.put(name, rows, rows.byteLength);
    return rows;
  }

  [Symbol.dispose](): void {
    this.#encoder[Symbol.dispose]();
  }
}

/** Values under names, within a number of bytes: what was not asked for the longest goes first. */
class RecentlyUsed<T> {
  readonly #mostBytes: number;
  readonly #values = new Map<string, { readonly value: T; readonly bytes: number }>();
  #bytes = 0;

  constructor(mostBytes: number) {
    this.#mostBytes = mostBytes;
  }

  get(name: string): T | undefined {
    const found = this.#values.get(name);
    if (found === undefined) return undefined;
    this.#values.delete(name);
    this.#values.set(name, found); // the youngest is the last
    return found.value;
  }

  put(name: string, value: T, bytes: number): void {
    this.#forget(name);
    this.#values.set(name, { value, bytes });
    this.#bytes += bytes;
    for (const oldest of this.#values.keys()) {
      if (this.#bytes <= this.#mostBytes) break;
      this.#forget(oldest);
    }
  }

  #forget(name: string): void {
    this.#bytes -= this.#values.get(name)?.bytes ?? 0;
    this.#values.delete(name);
  }
}
