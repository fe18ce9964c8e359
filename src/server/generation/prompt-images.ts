/**
 * The images of a conversation: the engine decodes them, away from this process, and gives the tokens that take their places in the
 * prompt. Here they are counted and measured, no more: a file's bytes are looked at by the engine alone.
 */
import { type ChatRequest, holdsImages } from "../../chat/chat-request.ts";
import {
  EngineError,
  type EngineFailure,
  type EngineInfo,
  prepareImage,
  type RequestImage,
} from "../../engine/batching/engine-port.ts";
import { vocabularyId } from "../../engine/vision/content-ids.ts";
import { HttpError } from "../http-error.ts";
import type { Services } from "../route.ts";

/** Throws an HttpError (400, unsupported_image) for a conversation with images where the model reads none. */
export function checkImages(request: ChatRequest, { images }: EngineInfo): void {
  if (images !== undefined || !holdsImages(request)) return;
  throw new HttpError(400, "The request holds images, which this model does not read", {
    code: "unsupported_image",
    where: "messages",
    hint: "Send text only, or serve a model with a vision part",
  });
}

/** `sources`: base64 data: URLs, in the order of the prompt's places. Throws an HttpError for what cannot be read. */
export async function preparePromptImages(
  sources: readonly string[],
  services: Services,
): Promise<readonly RequestImage[]> {
  const { images: limits } = services.requireInfo();
  if (sources.length === 0 || limits === undefined) return [];
  if (sources.length > limits.most) {
    throw new HttpError(400, `The request holds ${sources.length} images, ${limits.most} are the most`, {
      code: "image-count",
      where: "messages",
      hint: "Leave out the oldest, or start the server with a larger --max-images",
    });
  }
  const images: RequestImage[] = [];
  for (const [i, source] of sources.entries()) {
    // Four characters hold three bytes; the engine looks closer.
    if (source.length > (limits.maxBytes / 3) * 4 + 1024) throw tooLong(i, limits.maxBytes);
    images.push(await prepare(services.engine, source, i));
  }
  return images;
}

/** Ids that a tokenizer knows: the tokens of an image are many times the one that holds its place. */
export function readableIds(tokenIds: readonly number[], { images }: EngineInfo): readonly number[] {
  return images === undefined ? tokenIds : tokenIds.map((id) => vocabularyId(id, images.tokenId));
}

async function prepare(engine: Services["engine"], source: string, i: number): Promise<RequestImage> {
  try {
    return await prepareImage(engine, source);
  } catch (error) {
    if (error instanceof EngineError) throw refusal(error.failure, i);
    throw error;
  }
}

function refusal({ code, message, hint, isRetryable }: EngineFailure, i: number): HttpError {
  const status = isRetryable ? 503 : code === "engine_error" || code === "image-decoder" ? 500 : 400;
  return new HttpError(status, `Image ${i + 1} of the request: ${message}`, {
    code,
    where: "messages",
    ...(hint === undefined ? {} : { hint }),
    ...(isRetryable ? { retryAfterSeconds: 1 } : {}),
  });
}

function tooLong(i: number, maxBytes: number): HttpError {
  return new HttpError(400, `Image ${i + 1} of the request is longer than ${maxBytes} bytes`, {
    code: "image-bytes",
    where: "messages",
    hint: "Make it smaller, or save it as JPEG",
  });
}
