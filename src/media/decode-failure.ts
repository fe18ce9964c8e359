/** What the worker that decodes tells of an error; errors themselves do not cross the border between threads. */
import { FreeholdError } from "../errors.ts";
import { damaged } from "./byte-view.ts";

export interface DecodeFailure {
  readonly message: string;
  readonly code: string;
  readonly hint: string | undefined;
}

/** What to tell of an error: ours as it is; of a library's only that it failed, for it says nothing to a user. */
export function failureOf(error: unknown): DecodeFailure {
  // A trap in WebAssembly: what could not be allocated, most often.
  const isTrap = error instanceof RangeError || (error as { name?: unknown } | null)?.name === "RuntimeError";
  const { message, code, hint } = error instanceof FreeholdError ? error : isTrap ? outOfMemory : cannotRead;
  return { message, code, hint };
}

const cannotRead: DecodeFailure = damaged("the decoder cannot read it");

export const outOfMemory: DecodeFailure = {
  message: "The decoder gave up: the image is damaged, or needs more memory than it may have",
  code: "image-memory",
  hint: "Make it smaller, or save it again",
};
