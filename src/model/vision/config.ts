/**
 * What a checkpoint's config.json says about its vision part: the key `vision_config`, the id of image tokens, and the width
 * of the text model that the rows of an image go into.
 */
import { ModelError } from "../../errors.ts";

export interface VisionConfig {
  readonly numLayers: number;
  readonly hiddenSize: number;
  readonly numHeads: number;
  readonly intermediateSize: number;
  /** Pixels of a side of a patch. */
  readonly patchSize: number;
  readonly ropeTheta: number;
  /** Patches of a side of a cell; a cell is one token of the text. */
  readonly downsampleRatio: number;
  /** Tokens that an image may take in the text, line ends and marks included. */
  readonly maxImageTokens: number;
  /** Smaller images are scaled up to this many pixels. */
  readonly minPixels: number;
  /** Images that are wider than this many times their height are stretched; undefined: none is. */
  readonly maxAspectRatio: number | undefined;
  /** Channels of the text model. */
  readonly textHiddenSize: number;
  /** The id that every token of an image has. */
  readonly imageTokenId: number;
}

/** The vision norms' own; the text model's is another. */
export const visionNormEps = 1e-6;

type Json = Readonly<Record<string, unknown>>;

/** Undefined where the config has no vision part. Throws a ModelError (code "bad-config") that lists every problem. */
export function parseVisionConfig(json: unknown, where = "config.json"): VisionConfig | undefined {
  const root = isObject(json) ? json : {};
  const vision = root.vision_config;
  if (vision === undefined || vision === null) return undefined;
  const problems: string[] = [];
  const config = readConfig(root, isObject(vision) ? vision : {}, problems);
  checkTogether(config, problems);
  if (problems.length === 0) return config;
  throw new ModelError(`The vision part of the config does not describe a model: ${problems.join("; ")}`, {
    code: "bad-config",
    where,
    hint: "Compare it with the config.json that was published with the model",
  });
}

function readConfig(root: Json, vision: Json, problems: string[]): VisionConfig {
  const text = isObject(root.text_config) ? root.text_config : root;
  const count = (key: string, most: number, from: Json = vision, least = 1): number => {
    const value = from[key];
    if (Number.isInteger(value) && (value as number) >= least && (value as number) <= most) return value as number;
    problems.push(`${key} is ${shown(value)}, not a whole number from ${least} to ${most}`);
    return 1;
  };
  return {
    numLayers: count("num_hidden_layers", 1024),
    hiddenSize: count("hidden_size", 65_536),
    numHeads: count("num_attention_heads", 4096),
    intermediateSize: count("intermediate_size", 262_144),
    patchSize: count("patch_size", 256),
    ropeTheta: positive("rope_theta", vision, problems),
    downsampleRatio: count("downsample_ratio", 64),
    maxImageTokens: count("max_image_tokens", 65_536, vision, 4),
    minPixels: count("min_pixels", 2 ** 28),
    maxAspectRatio: vision.max_wh_ratio == null ? undefined : positive("max_wh_ratio", vision, problems),
    textHiddenSize: count("hidden_size", 1_048_576, text),
    imageTokenId: count("image_token_id", 16_777_216, root, 0),
  };
}

function positive(key: string, vision: Json, problems: string[]): number {
  const value = vision[key];
  if (typeof value === "number" && value > 0 && value < 1e12) return value;
  problems.push(`${key} is ${shown(value)}, not a positive number`);
  return 1;
}

function checkTogether({ hiddenSize, numHeads }: VisionConfig, problems: string[]): void {
  if (hiddenSize % numHeads !== 0) problems.push("hidden_size is not a multiple of num_attention_heads");
  else if ((hiddenSize / numHeads) % 4 !== 0) problems.push("the width of a vision head is not a multiple of 4");
}

function isObject(value: unknown): value is Json {
  return typeof value === "object" && value !== null && !Array.isArray(value);
}

function shown(value: unknown): string {
  return value === undefined ? "missing" : (JSON.stringify(value) ?? String(value)).slice(0, 40);
}
