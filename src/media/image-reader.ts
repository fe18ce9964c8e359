/**
 * Untrusted bytes to pixels. Type, size and number of pixels are checked before anything is decoded; decoding runs in a worker
 * thread with limits of time and memory. The thread is kept for the next image, so that each costs its decoding alone; one that
 * reached a limit, failed, or holds much memory is ended, and the next one started at once.
 *   using reader = new ImageReader();
 *   const { width, height, data } = await reader.read(bytes, { fit: (w, h) => ({ width: w, height: h, mode: "pad" }) });
 */
import { Worker } from "node:worker_threads";
import { MediaError } from "../errors.ts";
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

/** A thread gives memory back when it ends, and nobody knows when before: one that decoded more than this is not kept. */
const mostPixelsOfKeptThread = 4_000_000;
const mostBytesOfKeptThread = 4 * 2 ** 20;

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
  /** Takes the place of the thread as soon as it is ready and nothing is being decoded. */
  #next: DecodeThread | undefined;
  #isDecoding = false;
  #isClosed = false;
  #last: Promise<unknown> = Promise.resolve();

  constructor(limits: Partial<ImageLimits> = {}) {
    this.#limits = { ...defaultImageLimits, ...limits };
  }

  /**
   * The pixels of a file, or of a base64 data: URL. Throws a MediaError: code "image-type", "image-empty", "image-truncated",
   * "image-damaged", "image-bytes", "image-pixels", "image-shape", "image-time", "image-memory", "image-url" or "data-url".
   */
  async read(source: Uint8Array | string, { fit, signal }: ReadImageOptions = {}): Promise<DecodedImage> {
    const { maxBytes } = this.#limits;
    const bytes = typeof source === "string" ? await bytesOfDataUrl(source, maxBytes) : source;
    if (bytes.length > maxBytes) throw tooManyBytes(bytes.length, maxBytes);
    const header = readImageHeader(bytes);
    const [width, height] = isQuarterTurn(header.orientation)
      ? [header.height, header.width]
      : [header.width, header.height];
    this.#requireSize(width, height);
    const { flaw, ...sound } = header;
    if (flaw !== undefined) throw flaw;
    const wanted = fit?.(width, height);
    // Bytes travel to the thread: ours, or a copy of the caller's.
    const own = () => (typeof source === "string" ? bytes : new Uint8Array(bytes));
    const result = this.#last.then(() => this.#decode({ bytes: own(), header: sound, fit: wanted }, signal));
    this.#last = result.catch(() => {}); // the next one waits for this one, whatever became of it
    return result;
  }

  /** Starts the thread ahead of the first image: it takes 0.1 to 0.2 s, and some megabytes while nothing is read. */
  warm(): void {
    if (this.#isClosed || this.#thread?.isEnded === false) return;
    this.#startNext();
    this.#thread = this.#next;
    this.#next = undefined;
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
    this.warm();
    const thread = this.#thread;
    if (thread === undefined) throw new MediaError("The reader of images is closed", { code: "image-decoder" });
    this.#isDecoding = true;
    if (isLarge(job)) this.#startNext();
    const { timeMs } = this.#limits;
    const halfTime = setTimeout(() => this.#startNext(), timeMs / 2); // the thread may not see the end of it
    try {
      return await thread.decode(job, timeMs, signal);
    } finally {
      clearTimeout(halfTime);
      this.#isDecoding = false;
      if (!thread.isIdle) thread.end();
      this.warm();
      this.#change();
    }
  }

  #startNext(): void {
    if (this.#isClosed || this.#next?.isEnded === false) return;
    this.#next = new DecodeThread(this.#limits.memoryBytes, () => this.#change());
  }

  /** Meanwhile the thread of before goes on: who sends one bad image after another waits for no start. */
  #change(): void {
    if (this.#isDecoding || this.#next?.isReady !== true) return;
    this.#thread?.end();
    this.warm();
  }

  [Symbol.dispose](): void {
    this.#isClosed = true;
    for (const thread of [this.#thread, this.#next]) thread?.end();
    this.#thread = undefined;
    this.#next = undefined;
  }
}

function isLarge({ bytes, header }: DecodeJob): boolean {
  return header.width * header.height > mostPixelsOfKeptThread || bytes.length > mostBytesOfKeptThread;
}

type Answer = { readonly image: DecodedImage } | { readonly failure: DecodeFailure };

class DecodeThread {
  readonly #worker: Worker;
  readonly #ready = Promise.withResolvers<void>();
  #job: PromiseWithResolvers<DecodedImage> | undefined;
  isReady = false;
  /** It can decode nothing any more. */
  isEnded = false;

  constructor(memoryBytes: number, onReady: () => void) {
    // In the repository TypeScript runs as it is; the package holds JavaScript.
    const file = new URL(
      import.meta.url.endsWith(".ts") ? "./decode-worker.ts" : "./decode-worker.js",
      import.meta.url,
    );
    const resourceLimits = { maxOldGenerationSizeMb: 256, maxYoungGenerationSizeMb: 32 };
    // It gets neither the environment of the process nor options like --input-type, which are not for it.
    const closed = { env: {}, execArgv: [] };
    this.#worker = new Worker(file, {
      name: "freehold-images",
      resourceLimits,
      workerData: { memoryBytes },
      ...closed,
    });
    this.#worker.on("message", (answer: Answer | { readonly ready: true }) => {
      if ("ready" in answer) this.#ready.resolve();
      else this.#hear(answer);
    });
    this.#worker.on("error", (error) => this.#fail(errorOfThread(error)));
    this.#worker.on("exit", () => this.#fail(new MediaError("The thread that decodes images has ended")));
    this.#worker.unref(); // behind the listeners: who listens for messages holds the process
    this.#ready.promise.then(
      () => {
        this.isReady = true;
        onReady();
      },
      () => {},
    );
  }

  /** It waits for a job: it answered the last one, with an image or with what is wrong with the image. */
  get isIdle(): boolean {
    return !this.isEnded && this.#job === undefined;
  }

  /** The bytes of the job are the thread's from then on. */
  async decode(job: DecodeJob, timeMs: number, signal: AbortSignal | undefined): Promise<DecodedImage> {
    this.#worker.ref();
    const late = Promise.withResolvers<never>();
    const onAbort = () => late.reject(signal!.reason);
    signal?.addEventListener("abort", onAbort, { once: true });
    let timer: NodeJS.Timeout | undefined;
    try {
      await Promise.race([this.#ready.promise, late.promise]);
      const answer = Promise.withResolvers<DecodedImage>();
      this.#job = answer;
      timer = setTimeout(() => late.reject(tookTooLong(timeMs)), timeMs);
      this.#worker.postMessage(job, [job.bytes.buffer as ArrayBuffer]);
      return await Promise.race([answer.promise, late.promise]);
    } finally {
      clearTimeout(timer);
      signal?.removeEventListener("abort", onAbort);
      this.#worker.unref();
    }
  }

  end(): void {
    this.isEnded = true;
    void this.#worker.terminate();
  }

  #hear(answer: Answer): void {
    const job = this.#job;
    // A decoder that ran out of memory still holds it.
    if (!("failure" in answer) || answer.failure.code !== outOfMemory.code) this.#job = undefined;
    if ("image" in answer) job?.resolve(answer.image);
    else job?.reject(new MediaError(answer.failure.message, withoutHole(answer.failure)));
  }

  #fail(error: unknown): void {
    this.isEnded = true;
    this.isReady = false;
    this.#ready.reject(error);
    this.#job?.reject(error);
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
