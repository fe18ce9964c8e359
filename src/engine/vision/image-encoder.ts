/**
 * Images to the rows that stand for them in a text: a device's program of the vision tower, and the reader of image files.
 *   using images = new ImageEncoder(visionConfig, device);
 *   const { rows, tokens, key } = await images.encode(bytes);
 */
import type { Device, Program } from "../../device/device.ts";
import type { DecodedImage } from "../../media/decode-job.ts";
import { type ImageLimits, ImageReader } from "../../media/image-reader.ts";
import type { Pixels } from "../../media/pixels.ts";
import type { VisionConfig } from "../../model/vision/config.ts";
import { recordImageEncoder } from "../../model/vision/image-encoder.ts";
import { imageInputs } from "../../model/vision/image-inputs.ts";
import { type ImagePlan, planImage } from "../../model/vision/image-plan.ts";

/** An image that is ready for the tower. */
export interface PreparedImage {
  /** Pixels of the size in the plan. */
  readonly pixels: Pixels;
  readonly plan: ImagePlan;
  /** SHA-256 (hex) of the pixels: part of the key of every cache that holds what follows from the image. */
  readonly key: string;
}

export interface EncodedImage {
  /** [tokens, textHiddenSize]: what stands in place of the embeddings of the image's tokens. */
  readonly rows: Float32Array;
  /** Positions in the text. */
  readonly tokens: number;
  readonly key: string;
}

const noImage = { tokens: 1, cells: 1, span: 1 };

export class ImageEncoder {
  readonly config: VisionConfig;
  readonly #device: Device;
  readonly #reader: ImageReader;
  #program: Program | undefined;
  #last: Promise<unknown> = Promise.resolve();

  /** Ops of the tower that are done: a sign of life, for a large image takes a while. */
  steps = 0;

  /** The device must hold the weights of `visionParameters(config)`. */
  constructor(config: VisionConfig, device: Device, limits: Partial<ImageLimits> = {}) {
    this.config = config;
    this.#device = device;
    this.#reader = new ImageReader(limits);
  }

  /** Starts what reads images, so that the first one finds it ready. */
  warm(): void {
    this.#reader.warm();
  }

  /** Positions that an image of this many pixels takes in the text. */
  plan(width: number, height: number): ImagePlan {
    return planImage(width, height, this.config);
  }

  /** Reads a file or a base64 data: URL and fits it. Throws a MediaError. */
  async prepare(source: Uint8Array | string, options: { signal?: AbortSignal } = {}): Promise<PreparedImage> {
    let plan: ImagePlan | undefined;
    const fit = (width: number, height: number) => {
      plan = this.plan(width, height);
      return plan;
    };
    const { key, ...pixels }: DecodedImage = await this.#reader.read(source, { ...options, fit });
    return { pixels, plan: plan!, key };
  }

  /** The rows of a prepared image. One image is computed at a time; the others wait. An aborted signal ends it within a layer. */
  imageRows({ pixels, plan, key }: PreparedImage, { signal }: { signal?: AbortSignal } = {}): Promise<EncodedImage> {
    const run = async () => ({ rows: await this.#run(plan, pixels, signal), tokens: plan.tokens, key });
    const result = this.#last.then(run);
    this.#last = result.catch(() => {}); // the next one waits for this one, whatever became of it
    return result;
  }

  async encode(source: Uint8Array | string, options: { signal?: AbortSignal } = {}): Promise<EncodedImage> {
    return this.imageRows(await this.prepare(source, options), options);
  }

  async #run(plan: ImagePlan, pixels: Pixels, signal: AbortSignal | undefined): Promise<Float32Array> {
    signal?.throwIfAborted();
    const step = imageInputs(this.config, plan, pixels.data);
    this.#program ??= this.#device.compile(recordImageEncoder(this.config), {
      limits: noImage,
      onPause: () => void this.steps++,
    });
    const program = this.#program;
    program.reserve(step.sizes);
    try {
      if ((await program.run(step, signal)) === "stopped") throw signal!.reason;
      return Float32Array.from(program.read("rows"));
    } finally {
      program.reserve(noImage); // the memory for a large image is hundreds of megabytes
    }
  }

  [Symbol.dispose](): void {
    this.#reader[Symbol.dispose]();
  }
}
