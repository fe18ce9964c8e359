/**
 * A loaded model: weights on a device, a tokenizer and a prompt format. It answers single prompts, and makes sessions that
 * remember what was computed.
 */
import { holdsImages, parseChatRequest } from "../chat/chat-request.ts";
import type { DialectName } from "../chat/dialect.ts";
import { encodePrompt, type Prompt } from "../chat/prompt.ts";
import { renderFillInMiddle, renderPrompt } from "../chat/render-prompt.ts";
import type { Device } from "../device/device.ts";
import { ModelError, RequestError } from "../errors.ts";
import type { ModelConfig } from "../model/config.ts";
import type { Tokenizer } from "../tokenizer/tokenizer.ts";
import { type DrafterKind, Drafting } from "./drafting/drafting.ts";
import { DsparkDrafter } from "./drafting/dspark-drafter.ts";
import { MtpDrafter } from "./drafting/mtp-drafter.ts";
import type { EngramMemory } from "./engram/engram-memory.ts";
import type { EncodedPrompt, GenerateOptions, GenerationEvent, GenerationResult } from "./generation.ts";
import { ModelRunner } from "./model-runner.ts";
import { Session } from "./session.ts";
import type { ImageSource, ModelImages, PromptImage } from "./vision/model-images.ts";
import { placeImages } from "./vision/place-images.ts";
import type { ImageRows } from "./vision/step-images.ts";

/**
 * What can be asked: a text that the model continues as it is (spelled special tokens count), token ids, a conversation as chat APIs carry it
 * (`{messages, tools?, thinking? ...}`; images as parts
 * `{type: "image_url", image_url: {url: "data:image/png;base64,..."}}`), or a gap to fill.
 */
export type PromptInput =
  | string
  | readonly number[]
  | PromptWithImages
  | { readonly messages: readonly unknown[]; readonly [option: string]: unknown }
  | { readonly prefix: string; readonly suffix: string };

/** A text or token ids with an image token at each place of an image. */
export interface PromptWithImages {
  readonly prompt: string | readonly number[];
  /** In the order of their places. */
  readonly images: readonly ImageSource[];
}

/** What generation_config.json says where a request says nothing. */
export type GenerationDefaults = Pick<GenerateOptions, "temperature" | "topP" | "topK" | "maxTokens"> & {
  readonly eosTokenIds: readonly number[];
};

/** A prompt whose tokens a sequence can take, with the rows of its images. */
export interface PreparedPrompt extends EncodedPrompt {
  readonly images: ImageRows;
}

export interface ModelParts {
  readonly name: string;
  readonly config: ModelConfig;
  readonly device: Device;
  /** The n-gram memory, where the model has one. */
  readonly engram?: EngramMemory | undefined;
  /** What drafts; of "mtp" and "dspark" the device holds the weights too. Default: "off". */
  readonly drafter?: DrafterKind;
  /** What reads images, where its weights are on the device too. */
  readonly images?: ModelImages | undefined;
  /** Absent when the folder holds none: such a model works on token ids. */
  readonly tokenizer: Tokenizer | undefined;
  /** Why the one that the files hold cannot be used. */
  readonly tokenizerFault?: string;
  readonly dialect: DialectName;
  readonly defaults: GenerationDefaults;
  readonly contextLength: number;
  readonly notes: readonly string[];
  readonly addsBeginOfSequence: boolean;
}

export class Model implements Disposable {
  /** The folder or name that the model was loaded from. */
  readonly name: string;
  readonly config: ModelConfig;
  readonly #tokenizer: Tokenizer | undefined;
  readonly #tokenizerFault: string | undefined;
  readonly dialect: DialectName;
  readonly defaults: GenerationDefaults;
  /** Tokens that prompt and answer may have together. */
  readonly contextLength: number;
  /** What a user should know about the files. */
  readonly notes: readonly string[];
  readonly device: Device;
  /** Whether raw text gets a begin-of-sequence token in front (tokenizer_config.json, add_bos_token). */
  readonly addsBeginOfSequence: boolean;
  /** Steps over any mixture of sequences, for those who schedule themselves. */
  readonly runner: ModelRunner;
  /** What guesses tokens ahead for the answers of this model. */
  readonly drafting: Drafting;
  /** Images of prompts; undefined for a model that reads none. */
  readonly images: ModelImages | undefined;

  constructor(parts: ModelParts) {
    this.name = parts.name;
    this.config = parts.config;
    this.#tokenizer = parts.tokenizer;
    this.#tokenizerFault = parts.tokenizerFault;
    this.dialect = parts.dialect;
    this.defaults = parts.defaults;
    this.contextLength = parts.contextLength;
    this.notes = parts.notes;
    this.device = parts.device;
    this.addsBeginOfSequence = parts.addsBeginOfSequence;
    const { config, device, engram, drafter = "off", images } = parts;
    this.images = images;
    const imageTokenId = images?.config.imageTokenId;
    const drafts = drafter === "mtp" || drafter === "dspark";
    this.runner = new ModelRunner(config, device, { engram, imageTokenId, drafts });
    this.drafting = draftingOf(drafter, this.runner, device);
  }

  /** Throws a ModelError when the model came without one. */
  get tokenizer(): Tokenizer {
    if (this.#tokenizer !== undefined) return this.#tokenizer;
    const message = "The model has no tokenizer that can be used";
    throw new ModelError(this.#tokenizerFault === undefined ? message : `${message}: ${this.#tokenizerFault}`, {
      code: "no-tokenizer",
      where: this.name,
      hint: "Give token ids (--ids), or copy the model's tokenizer.json into its folder",
    });
  }

  get hasTokenizer(): boolean {
    return this.#tokenizer !== undefined;
  }

  /** Token ids of a text; with `special`, spellings of special tokens count. */
  encode(text: string, options: { special?: boolean } = {}): number[] {
    return this.tokenizer.encode(text, options);
  }

  /** The text of token ids. */
  decode(ids: readonly number[]): string {
    return this.tokenizer.decode(ids);
  }

  /** The exact prompt of a conversation. Throws a RequestError that names what is wrong with it. */
  render(request: { readonly messages: readonly unknown[] }): Prompt {
    return renderPrompt(parseChatRequest(request), this.dialect);
  }

  /** Token ids of any kind of prompt, and how its answer is read. An image is one token: its place. */
  encodePrompt(input: PromptInput): EncodedPrompt {
    const { tokenIds, parse } = this.#encode(input);
    return { tokenIds, parse };
  }

  /**
   * A prompt that is ready for a sequence: its images are decoded and computed, and their tokens have ids that name their content. Throws
   * a MediaError for an image that cannot be read, a RequestError where the model reads none or the prompt does not fit the context.
   */
  async preparePrompt(
    input: PromptInput,
    { reserve = 1, ...options }: { reserve?: number; signal?: AbortSignal } = {},
  ): Promise<PreparedPrompt> {
    const { images, parse, ...encoded } = this.#encode(input);
    const tokenIds = images.length === 0 ? encoded.tokenIds : await this.#place(encoded.tokenIds, images, options);
    this.checkPrompt(tokenIds, reserve);
    return { tokenIds, parse, images: (await this.images?.rowsOf(tokenIds)) ?? new Map() };
  }

  #encode(input: PromptInput): EncodedPrompt & { readonly images: readonly ImageSource[] } {
    if (typeof input === "string" || isTokenIds(input))
      return { tokenIds: this.#rawIds(input), parse: undefined, images: [] };
    if ("messages" in input) {
      const request = parseChatRequest(input);
      if (holdsImages(request)) this.#requireImages();
      const { images, parse, ...prompt } = renderPrompt(request, this.dialect);
      return { tokenIds: encodePrompt(prompt, this.tokenizer), parse, images };
    }
    if ("images" in input) return { tokenIds: this.#rawIds(input.prompt), parse: undefined, images: input.images };
    const prompt = renderFillInMiddle(input.prefix, input.suffix);
    return { tokenIds: encodePrompt(prompt, this.tokenizer), parse: undefined, images: [] };
  }

  /** Raw is raw: special tokens may be spelled, and none is added unless the tokenizer's config says so. */
  #rawIds(prompt: string | readonly number[]): readonly number[] {
    if (typeof prompt !== "string") return prompt;
    const begin = this.addsBeginOfSequence ? [this.config.bosTokenId] : [];
    return [...begin, ...this.encode(prompt, { special: true })];
  }

  /** The prompt with the tokens of each image in its place. */
  async #place(
    tokenIds: readonly number[],
    sources: readonly ImageSource[],
    options: { signal?: AbortSignal },
  ): Promise<readonly number[]> {
    const reader = this.#requireImages();
    const images: PromptImage[] = [];
    for (const source of sources) images.push(await reader.prepare(source, options));
    return placeImages(tokenIds, reader.config.imageTokenId, images);
  }

  #requireImages(): ModelImages {
    if (this.images !== undefined) return this.images;
    throw new RequestError("The prompt holds images, which this model does not read", {
      code: "unsupported_image",
      where: this.name,
      hint: "Send text only, or load a model with a vision part",
    });
  }

  /** A conversation or a text that grows; what was computed is used again. */
  createSession(): Session {
    return new Session(this, this.runner.createSequence());
  }

  /**
   * Answers one prompt, as a stream of events; the last is `{type: "end", result}`.
   *   for await (const event of model.generate("Once upon a time", { maxTokens: 50 }))
   *     if (event.type === "content") process.stdout.write(event.text);
   */
  async *generate(input: PromptInput, options: GenerateOptions = {}): AsyncGenerator<GenerationEvent, void, undefined> {
    using session = this.createSession();
    yield* session.generate(input, options);
  }

  /** Answers one prompt as a whole. */
  async complete(input: PromptInput, options: GenerateOptions = {}): Promise<GenerationResult> {
    using session = this.createSession();
    return await session.complete(input, options); // awaited: the session ends with this block
  }

  /**
   * The logits of a sequence of tokens: one row [vocabSize] for each position, or only for the last. Chunk size and steps
   * change no bit of them. Throws a RequestError for an empty sequence, one longer than the context, or a wrong id.
   */
  async logits(
    input: readonly number[] | PromptWithImages,
    options: { last?: boolean; chunk?: number; signal?: AbortSignal } = {},
  ): Promise<Float32Array[]> {
    const { tokenIds, images } = await this.preparePrompt(input, { reserve: 0 });
    using sequence = this.runner.createSequence();
    sequence.images = images;
    const outputs = options.last ? 1 : tokenIds.length;
    return await this.runner.append(
      { sequence, tokenIds, outputs },
      {
        ...(options.chunk ? { stepTokens: options.chunk } : {}),
        ...(options.signal ? { signal: options.signal } : {}),
      },
    );
  }

  /** Throws unless the prompt fits the context with room for `reserve` more tokens. */
  checkPrompt(tokenIds: ArrayLike<number>, reserve: number): void {
    if (tokenIds.length === 0) {
      throw new RequestError("The prompt is empty", {
        code: "empty-prompt",
        hint: "Give at least one token or some text",
      });
    }
    if (tokenIds.length + reserve <= this.contextLength) return;
    const room = tokenIds.length > this.contextLength ? "" : ` and needs room for ${reserve} more`;
    throw new RequestError(`The prompt has ${tokenIds.length} tokens${room}, the context only ${this.contextLength}`, {
      code: "context_length_exceeded",
      hint: "Shorten the prompt, or make room with --context",
    });
  }

  /** Frees the model. Answers that are being made, or asked for later, fail with a DeviceError of the code "disposed". */
  [Symbol.dispose](): void {
    this.runner.engram?.[Symbol.dispose]();
    this.images?.[Symbol.dispose]();
    this.device[Symbol.dispose]();
  }
}

function draftingOf(kind: DrafterKind, runner: ModelRunner, device: Device): Drafting {
  if (kind === "mtp") return new Drafting(new MtpDrafter(runner));
  if (kind === "dspark") return new Drafting(new DsparkDrafter(runner, device));
  return new Drafting(kind);
}

function isTokenIds(input: PromptInput): input is readonly number[] {
  return Array.isArray(input);
}
