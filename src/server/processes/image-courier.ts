/**
 * Images on their way to an engine: one at a time, each as a frame of its own, for together they may be more than a pipe holds. Which
 * engine has an image is remembered, so that the next one gets it again after a death.
 */
import { EngineError, type EngineFailure, type RequestImage } from "../../engine/batching/engine-port.ts";
import type { FromEngine, PreparedImage, ToEngine } from "./engine-messages.ts";
import type { FrameChannel } from "./frames.ts";

type Channel = FrameChannel<ToEngine, FromEngine>;

export class ImageCourier {
  /** Of the engine that has its model; undefined while there is none. */
  #channel: Channel | undefined;
  #last: Promise<unknown> = Promise.resolve();
  #waiting: { readonly id: number; readonly answer: PromiseWithResolvers<PreparedImage> } | undefined;
  #ids = 0;
  readonly #carried = new WeakMap<RequestImage, Channel>();

  connect(channel: Channel): void {
    this.#channel = channel;
  }

  /** The engine is gone: the image that was on its way fails. */
  disconnect(): void {
    this.#channel = undefined;
    this.#waiting?.answer.resolve({ failure: engineGone });
    this.#waiting = undefined;
  }

  hear({ id, result }: Extract<FromEngine, { type: "image" }>): void {
    if (this.#waiting?.id !== id) return;
    this.#waiting.answer.resolve(result);
    this.#waiting = undefined;
  }

  /** Rejects with an EngineError. */
  prepare(source: string): Promise<RequestImage> {
    const image = this.#last.then(() => this.#carry(source));
    this.#last = image.catch(() => undefined);
    return image;
  }

  /** Whether the engine of now has all of these. */
  hasCarried(images: readonly RequestImage[]): boolean {
    return images.every((image) => this.#carried.get(image) === this.#channel);
  }

  /** Gives the engine of now images that another one had, or that it has forgotten. */
  async carryAgain(images: readonly RequestImage[]): Promise<void> {
    for (const image of images) {
      await this.prepare(image.source);
      if (this.#channel !== undefined) this.#carried.set(image, this.#channel);
    }
  }

  async #carry(source: string): Promise<RequestImage> {
    const channel = this.#channel;
    if (channel === undefined) throw new EngineError(engineGone);
    const id = this.#ids++;
    const answer = Promise.withResolvers<PreparedImage>();
    this.#waiting = { id, answer };
    channel.flush();
    channel.send({ type: "image", id, source });
    channel.flush();
    const result = await answer.promise;
    if ("failure" in result) throw new EngineError(result.failure);
    const image = { source, tokenIds: result.tokenIds };
    this.#carried.set(image, channel);
    return image;
  }
}

const engineGone: EngineFailure = {
  code: "engine_died",
  message: "The engine is not there to read the image",
  hint: "Try again",
  isRetryable: true,
};
