/** Images that a user names: files, read here and judged where they are decoded. */
import { createReadStream } from "node:fs";
import { RequestError } from "../errors.ts";
import { readBounded, reasonOf } from "./input.ts";

/** Bytes of a file that are read into memory; what a model takes is less. */
const maxBytes = 64 * 2 ** 20;

/** A user's message with these images in front of its text. */
export async function messageWithImages(text: string, files: readonly string[]): Promise<object> {
  if (files.length === 0) return { role: "user", content: text };
  const images = await Promise.all(files.map(readImageFile));
  const parts = images.map((bytes) => ({ type: "image_url", image_url: { url: dataUrl(bytes) } }));
  return { role: "user", content: [...parts, { type: "text", text }] };
}

export async function readImageFile(path: string): Promise<Uint8Array> {
  const tooLarge = () =>
    new RequestError(`The image is larger than ${maxBytes / 2 ** 20} MiB`, {
      code: "image-bytes",
      where: path,
      hint: "Make it smaller, or save it as JPEG",
    });
  try {
    return await readBounded(createReadStream(path), maxBytes, tooLarge);
  } catch (error) {
    if (error instanceof RequestError) throw error;
    throw new RequestError(`Cannot read the image: ${reasonOf(error)}`, {
      code: "file",
      where: path,
      hint: "Give the path of a PNG, JPEG, WebP or GIF that this user may read",
      cause: error,
    });
  }
}

/** The type is that of the bytes, whatever stands here. */
function dataUrl(bytes: Uint8Array): string {
  return `data:image/*;base64,${Buffer.from(bytes).toString("base64")}`;
}
