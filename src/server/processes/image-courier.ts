/**
 * Images on their way to an engine: one at a time, in pieces that others' events go between, each written before the next is made.
 * Which engine has an image is remembered, so that the next one gets it again after a death.
 */
import { EngineError, type EngineFailure, type RequestImage } from "../../engine/batching/engine-port.ts";
import type { FromEngine, PreparedImage, ToEngine } from "./engine-messages.ts";
import type { FrameChannel } from "./frames.ts";

type Channel = FrameChannel<ToEngine, FromEngine>;

/** Copied in a fraction of a millisecond. */
const pieceLength = 2 ** 18;

export class ImageCourier {
  /** Of the engine that has its model; undefined while there is none. */
  #channel: Channel | undefined;
  /** Settles when there is one, or nobody waits for one any more. */
  #engine = Promise.withResolvers<Channel | undefined>();
  #last: Promise<unknown> = Promise.resolve();
  #waiting: { readonly id: number; readonly answer: PromiseWithResolvers<PreparedImage> } | undefined;
  #ids = 0;
  readonly #carried = new WeakMap<RequestImage, Channel>();

  connect(channel: Channel): void {
    this.#channel = channel;
    this.#engine.resolve(channel);
  }

  /** Images wait no longer for an engine. */
  giveUp(): void {
    this.#engine.resolve(undefined);
    if (this.#channel === undefined) this.#engine = Promise.withResolvers();
  }

  /** The engine is gone, and with it the image that was on its way. */
  disconnect(): void {
    if (this.#channel !== undefined) this.#engine = Promise.withResolvers();
    this.#channel = undefined;
    this.#waiting?.answer.resolve({ failure: engineGone });
    this.#waiting = undefined;
  }

  hear({ id, result }: Extract<FromEngine, { type: "image" }>): void {
    if (this.#waiting?.id !== id) return;
    this.#waiting.answer.resolve(result);
    this.#waiting = undefined;
  }

  /** Waits for an engine where there is none, and tries the next one when it dies meanwhile. Rejects with an EngineError. */
  prepare(source: string): Promise<RequestImage> {
    const isDeath = (error: unknown) => error instanceof EngineError && error.code === engineGone.code;
    const carry = () => this.#carry(source);
    const image = this.#last.then(() => carry().catch((error) => (isDeath(error) ? carry() : Promise.reject(error))));
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
    const channel = await this.#engine.promise;
    if (channel === undefined) throw new EngineError(engineGone);
    const id = this.#ids++;
    const answer = Promise.withResolvers<PreparedImage>();
    this.#waiting = { id, answer };
    const isWaiting = () => this.#waiting?.id === id; // until the engine is gone
    for (let start = 0, isLast = false; !isLast && isWaiting(); start += pieceLength) {
      isLast = start + pieceLength >= source.length;
      await channel.sendPiece({ type: "image", id, isLast }, source.slice(start, start + pieceLength));
    }
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
