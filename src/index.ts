/**
 * The public API: a model and a session.
 *   import { loadModel } from "freehold";
 *   using model = await loadModel();
 *   const { text } = await model.complete({ messages: [{ role: "user", content: "Hi" }] });
 * This entry imports no module of Node; loading from a folder brings in what it needs when it is called.
 */
import type { LoadOptions } from "./engine/load-model.ts";
import type { Model } from "./engine/model.ts";
import { Pacer } from "./engine/pacer.ts";

/**
 * Loads a model from a Hugging Face folder or a .gguf file; without a reference, the small model that comes with Freehold.
 * Throws a ModelError or FormatError that says what is wrong with which file.
 */
export async function loadModel(reference?: string, options?: LoadOptions): Promise<Model> {
  const turns = new Pacer(0);
  for (const part of partsOfLoading) {
    await part();
    await turns.pause();
  }
  const { loadModel: load } = await import("./engine/load-model.ts");
  return load(reference, options);
}

/**
 * What loading needs, one in a turn: a module is run with all that it imports, and everything at once would hold the caller's event
 * loop for 50 to 100 ms.
 */
const partsOfLoading: readonly (() => Promise<unknown>)[] = [
  () => import("./format/gguf.ts"),
  () => import("./engine/checkpoint.ts"),
  () => import("./engine/gguf-checkpoint.ts"),
  () => import("./engine/kernels/native-host.ts"),
  () => import("./engine/choose-device.ts"),
  () => import("./engine/engram/open-engram.ts"),
  () => import("./engine/vision/model-images.ts"),
  () => import("./engine/vision/vision-checkpoint.ts"),
];

export type { Delta, ParseOptions } from "./chat/output-parser.ts";
export type { Prompt, PromptPart } from "./chat/prompt.ts";
export type { GenerateOptions, GenerationEvent, GenerationResult } from "./engine/generation.ts";
export type { LoadOptions } from "./engine/load-model.ts";
export { Model, type PromptInput, type PromptWithImages } from "./engine/model.ts";
export type { SamplingOptions } from "./engine/sampling/sampling-options.ts";
export { Session } from "./engine/session.ts";
export type { ImageSource } from "./engine/vision/model-images.ts";
export {
  DeviceError,
  FormatError,
  FreeholdError,
  MediaError,
  ModelError,
  RequestError,
  ShapeError,
  UsageError,
} from "./errors.ts";
export type { ModelConfig } from "./model/config.ts";
export { Tokenizer } from "./tokenizer/tokenizer.ts";
