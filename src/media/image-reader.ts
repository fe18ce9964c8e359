/**
 * Untrusted bytes to pixels. Type, size and number of pixels are checked before anything is decoded; decoding runs in a worker
 * thread with limits of time and memory, which is ended when they are reached or anything goes wrong.
 *   using reader = new ImageReader();
 *   const { width, height, data } = await reader.read(bytes, { fit: (w, h) => ({ width: w, height: h, mode: "pad" }) });
 */
import { Worker } from "node:worker_threads";
import { MediaError } from "../errors.ts";
import { truncated } from "./byte-view.ts";
import { bytesOfDataUrl, tooManyBytes } from "./data-url.ts";
import { type DecodeFailure, outOfMemory } from "./decode-failure.ts";
import type { DecodedImage, DecodeJob } from "./decode-job.ts";
import { isQuarterTurn } from "./exif-orientation.ts";
import type { Fit } from "./fit-image.ts";
import { readImageHeader } from "./image-header.ts";

export interface ImageLimits {
  /** Bytes of a file. */
  readonly maxBytes: number;
  /** Width times height. */
  readonly maxPixels: number;
  /** From handing an image to the thread until its pixels are there. */
  readonly timeMs: number;
  /** Bytes that a decoder may have at a time, beside the file and the pixels. */
  readonly memoryBytes: number;
}

export const defaultImageLimits: ImageLimits = {
  maxBytes: 32 * 2 ** 20,
  maxPixels: 24_000_000,
  timeMs: 2000,
  memoryBytes: 512 * 2 ** 20,
};

/** The memory of a WebAssembly module never shrinks: a thread that decoded a larger picture is ended, not kept. */
const mostPixelsOfKeptThread = 4_000_000;

export interface ReadImageOptions {
  /** The size that the pixels are to have, from that of the picture. Default: its own. */
  readonly fit?: (width: number, height: number) => Fit;
  readonly signal?: AbortSignal;
}

/** Reads one image. For several, an ImageReader keeps its thread. */
export async function readImage(
  source: Uint8Array | string,
  { limits = {}, ...options }: ReadImageOptions & { limits?: Partial<ImageLimits> } = {},
): Promise<DecodedImage> {
  using reader = new ImageReader(limits);
  return await reader.read(source, options);
}

export class ImageReader {
  readonly #limits: ImageLimits;
  #thread: DecodeThread | undefined;
  #last: Promise<unknown> = Promise.resolve();

  constructor(limits: Partial<ImageLimits> = {}) {
    this.#limits = { ...defaultImageLimits, ...limits };
  }

  /**
   * The pixels of a file, or of a base64 data: URL. Throws a MediaError: code "image-type", "image-empty", "image-truncated",
   * "image-damaged", "image-bytes", "image-pixels", "image-shape", "image-time", "image-memory", "image-url" or "data-url".
   */
  async read(source: Uint8Array | string, { fit, signal }: ReadImageOptions = {}): Promise<DecodedImage> {
    const { maxBytes, memoryBytes } = this.#limits;
    const bytes = typeof source === "string" ? bytesOfDataUrl(source, maxBytes) : source;
    if (bytes.length > maxBytes) throw tooManyBytes(bytes.length, maxBytes);
    const header = readImageHeader(bytes);
    const [width, height] = isQuarterTurn(header.orientation)
      ? [header.height, header.width]
      : [header.width, header.height];
    this.#requireSize(width, height);
    if (!header.isWhole) throw truncated();
    const job = { bytes, header, fit: fit?.(width, height), memoryBytes };
    const result = this.#last.then(() => this.#decode(job, signal));
    this.#last = result.catch(() => {}); // the next one waits for this one, whatever became of it
    return result;
  }

  #requireSize(width: number, height: number): void {
    const { maxPixels } = this.#limits;
    if (width > 0 && height > 0 && width * height <= maxPixels) return;
    throw new MediaError(`The image has ${width} x ${height} pixels; at least one and at most ${maxPixels} are read`, {
      code: "image-pixels",
      hint: "Scale it down",
    });
  }

  async #decode(job: DecodeJob, signal: AbortSignal | undefined): Promise<DecodedImage> {
    signal?.throwIfAborted();
    this.#thread ??= new DecodeThread();
    const thread = this.#thread;
    try {
      const image = await thread.decode(job, this.#limits.timeMs, signal);
      if (job.header.width * job.header.height > mostPixelsOfKeptThread) this.#endThread();
      return image;
    } catch (error) {
      // A decoder that failed may have left anything in its memory.
      this.#endThread();
      throw error;
    }
  }

  #endThread(): void {
    this.#thread?.end();
    this.#thread = undefined;
  }

  [Symbol.dispose](): void {
    this.#endThread();
  }
}

type Answer = { readonly image: DecodedImage } | { readonly failure: DecodeFailure } | { readonly ready: true };

class DecodeThread {
  readonly #worker: Worker;
  readonly #ready = Promise.withResolvers<void>();
  #job = Promise.withResolvers<DecodedImage>();

  constructor() {
    // In the repository TypeScript runs as it is; the package holds JavaScript.
    const file = new URL(
      import.meta.url.endsWith(".ts") ? "./decode-worker.ts" : "./decode-worker.js",
      import.meta.url,
    );
    const resourceLimits = { maxOldGenerationSizeMb: 256, maxYoungGenerationSizeMb: 32 };
    // It gets neither the environment of the process nor options like --input-type, which are not for it.
    this.#worker = new Worker(file, { name: "freehold-images", resourceLimits, env: {}, execArgv: [] });
    this.#worker.unref();
    this.#worker.on("message", (answer: Answer) => this.#hear(answer));
    this.#worker.on("error", (error) => this.#fail(errorOfThread(error)));
    this.#worker.on("exit", () => this.#fail(new MediaError("The thread that decodes images has ended")));
    this.#ready.promise.catch(() => {});
    this.#job.promise.catch(() => {});
  }

  async decode(job: DecodeJob, timeMs: number, signal: AbortSignal | undefined): Promise<DecodedImage> {
    this.#worker.ref();
    const late = Promise.withResolvers<never>();
    const onAbort = () => late.reject(signal!.reason);
    signal?.addEventListener("abort", onAbort, { once: true });
    let timer: NodeJS.Timeout | undefined;
    try {
      await Promise.race([this.#ready.promise, late.promise]);
      this.#job = Promise.withResolvers();
      this.#job.promise.catch(() => {});
      timer = setTimeout(() => late.reject(tookTooLong(timeMs)), timeMs);
      this.#worker.postMessage(job);
      return await Promise.race([this.#job.promise, late.promise]);
    } finally {
      clearTimeout(timer);
      signal?.removeEventListener("abort", onAbort);
      this.#worker.unref();
    }
  }

  end(): void {
    void this.#worker.terminate();
  }

  #hear(answer: Answer): void {
    if ("ready" in answer) this.#ready.resolve();
    else if ("image" in answer) this.#job.resolve(answer.image);
    else this.#job.reject(new MediaError(answer.failure.message, withoutHole(answer.failure)));
  }

  #fail(error: unknown): void {
    this.#ready.reject(error);
    this.#job.reject(error);
  }
}

function withoutHole({ code, hint }: DecodeFailure): { code: string; hint?: string } {
  return hint === undefined ? { code } : { code, hint };
}

function errorOfThread(error: unknown): MediaError {
  const isMemory = (error as { code?: unknown }).code === "ERR_WORKER_OUT_OF_MEMORY";
  if (isMemory) return new MediaError(outOfMemory.message, { ...withoutHole(outOfMemory), cause: error });
  return new MediaError("The thread that decodes images failed", { code: "image-decoder", cause: error });
}

function tookTooLong(timeMs: number): MediaError {
  return new MediaError(`The image took longer than ${timeMs} ms to decode`, {
    code: "image-time",
    hint: "Make it smaller, or save it as a baseline JPEG",
  });
}
