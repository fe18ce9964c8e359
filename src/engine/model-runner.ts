/**
 * A model on a device: runs steps over any mixture of sequences and returns logits. It cuts long inputs into steps of
 * bounded size; the cut does not change a bit of the result.
 */

import type { Device, Program } from "../device/device.ts";
import { yieldToEventLoop } from "../device/event-loop.ts";
import { DeviceError, RequestError } from "../errors.ts";
import type { ModelConfig } from "../model/config.ts";
import { recordTransformer } from "../model/transformer.ts";
import { cacheLayouts } from "../tensor/graph.ts";
import type { CacheLayout } from "../tensor/paging.ts";
import type { Sizes } from "../tensor/shape.ts";
import { KvCache, type SequenceCache } from "./cache/kv-cache.ts";
import { type StepTables, stepLimits, stepTables } from "./cache/step-tables.ts";
import { blockTables, type DraftingPart, type DraftToken, pairTables } from "./drafting/draft-tables.ts";
import type { EngramMemory, NgramPart } from "./engram/engram-memory.ts";
import { stepTokensAt } from "./step-tokens.ts";
import { isContentId, vocabularyId } from "./vision/content-ids.ts";
import { type ImagePart, type ImageRows, stepImages } from "./vision/step-images.ts";

export interface RunnerOptions {
  /** Tokens a step may hold at most; a longer input takes several steps. */
  readonly stepTokens?: number;
  /** Tokens of context that the indexer's table of scores has room for at first; it grows. */
  readonly context?: number;
  /** Labels of intermediate values that stay readable after a step. */
  readonly keep?: readonly string[];
  readonly maxRewind?: number;
  /** The n-gram memory of a model that has one. */
  readonly engram?: EngramMemory | undefined;
  /** The id of image tokens, where sequences may hold images. */
  readonly imageTokenId?: number | undefined;
  /** Compute what the model drafts with as well: its MTP module, or DSpark. The device must hold the weights of it. */
  readonly drafts?: boolean;
}

/** Where a sequence drafts from: the token behind all computed ones, or one that was drafted. */
export interface DraftFrom extends DraftToken {
  readonly sequence: Sequence;
}

/** Tokens to append to a sequence, and how many of the last of them want logits. */
export interface Append {
  readonly sequence: Sequence;
  readonly tokenIds: readonly number[];
  readonly outputs: number;
  /** Tokens that the next step will append: what they need of the n-gram memory is read while this step computes. */
  readonly upcoming?: readonly number[];
}

export class ModelRunner {
  readonly config: ModelConfig;
  /** What computes: `Device.kernels`. Two of them may differ in the last bits. */
  readonly kernels: string;
  readonly program: Program;
  readonly cache: KvCache;
  readonly stepTokens: number;
  readonly engram: EngramMemory | undefined;
  readonly #imageTokenId: number | undefined;
  /** Whether it keeps up what the model drafts with: then `draft` may be called. */
  readonly drafts: boolean;
  /** Settles when the last step that was asked for is done: one program has one arena. */
  #running: Promise<void> = Promise.resolve();
  #limits: { tokens: number; sequences: number; outputs: number; context: number };
  /** Tokens that share an entry of the indexer. */
  readonly tokensPerScore: number;

  constructor(config: ModelConfig, device: Device, options: RunnerOptions = {}) {
    this.config = config;
    this.kernels = device.kernels;
    this.stepTokens = options.stepTokens ?? 512;
    this.#limits = { tokens: this.stepTokens, sequences: 1, outputs: 1, context: options.context ?? 4096 };
    this.engram = options.engram;
    this.#imageTokenId = options.imageTokenId;
    requireDrafter(config, options.drafts ?? false);
    if (config.architecture === "deepseek-v4.1" && config.engram !== undefined && this.engram === undefined)
      throw new DeviceError("The model has an n-gram memory, and the runner was given none", { code: "no-engram" });
    this.drafts = options.drafts ?? false;
    const readsImages = options.imageTokenId !== undefined;
    const graph = recordTransformer(config, { drafts: this.drafts, readsImages });
    const layouts = cacheLayouts(graph);
    const growing = layouts.filter(({ reach }) => reach === Number.POSITIVE_INFINITY);
    this.tokensPerScore = Math.min(4, ...growing.map(({ tokensPerRow }) => tokensPerRow));
    this.program = device.compile(graph, { limits: this.#limitsOf(layouts), keep: options.keep ?? [] });
    this.cache = new KvCache(this.program, options.maxRewind);
  }

  createSequence(): Sequence {
    return new Sequence(this, this.cache.createSequence(), []);
  }

  /** A sequence over a cache that already holds these tokens; from now on the cache belongs to it. */
  adoptSequence(cache: SequenceCache, tokenIds: readonly number[]): Sequence {
    return new Sequence(this, cache, tokenIds.slice());
  }

  /**
   * Appends tokens to a sequence in steps of `stepTokens`. Returns the logits of the last `outputs` tokens, one row of
   * vocabSize each; `onStep` hears how many tokens are done. An aborted `signal` ends the work like a step; the steps before
   * that one stay computed.
   */
  async append(
    { sequence, tokenIds, outputs }: Append,
    options: { stepTokens?: number; signal?: AbortSignal; onStep?: (done: number) => void } = {},
  ): Promise<Float32Array[]> {
    const stepTokens = Math.min(options.stepTokens ?? this.stepTokens, this.stepTokens);
    const rows: Float32Array[] = [];
    for (let start = 0, count: number; start < tokenIds.length; start += count) {
      count = Math.min(stepTokens, stepTokensAt(sequence.length + stepTokens, this.tokensPerScore));
      const part = tokenIds.slice(start, start + count);
      const wanted = Math.min(part.length, Math.max(0, start + part.length - (tokenIds.length - outputs)));
      const upcoming = tokenIds.slice(start + count, start + 2 * count);
      const step = [{ sequence, tokenIds: part, outputs: wanted, upcoming }];
      rows.push(...(await this.step(step, options.signal)).flat());
      options.onStep?.(start + part.length);
      await yieldToEventLoop();
    }
    return rows;
  }

  /**
   * One step over several sequences: for each the logits of its last `outputs` tokens. Steps that are asked for at the same
   * time run one after another. An aborted `signal` ends the step within the time of a layer, by throwing the signal's reason; all
   * sequences are then as they were before it, as they are after a step that failed.
   */
  async step(batch: readonly Append[], signal?: AbortSignal): Promise<Float32Array[][]> {
    for (const { tokenIds } of batch) this.#checkTokens(tokenIds);
    for (const { sequence } of batch) await sequence.recompute(signal);
    return this.betweenSteps(async () => {
      signal?.throwIfAborted();
      try {
        return await this.#run(batch, signal);
      } catch (error) {
        for (const { sequence } of batch) sequence.cache.dropUnusedPages();
        throw error;
      }
    });
  }

  /** Does what must not happen while a step is computed: all that moves or fills caches. */
  async betweenSteps<T>(work: () => T | Promise<T>): Promise<T> {
    const before = this.#running;
    const { promise, resolve } = Promise.withResolvers<void>();
    this.#running = promise;
    await before;
    try {
      return await work();
    } finally {
      resolve();
    }
  }

  /**
   * A step of the drafter alone, for sequences that have computed something: nothing is appended. Afterwards the program's outputs
   * "draft.logits" and, of V4.1, "draft.collapsed" are those of the drafts, in their order; `read` is called for them before
   * another step.
   */
  async draft<T>(batch: readonly DraftFrom[], read: (program: Program) => T): Promise<T> {
    this.#checkTokens(batch.map(({ tokenId }) => tokenId));
    for (const { sequence } of batch) await sequence.recompute();
    return this.betweenSteps(async () => {
      const parts = batch.map(({ sequence: { cache }, tokenId, place }): DraftingPart => {
        return { cache, tokenIds: [], outputs: 0, ahead: place + 1, draft: { tokenId, place } };
      });
      await this.#compute(parts, []);
      return read(this.program);
    });
  }

  /** `batch` is what the parts append; nothing where they draft. */
  async #compute(parts: readonly DraftingPart[], batch: readonly Append[], signal?: AbortSignal): Promise<void> {
    this.#makeRoom(parts);
    for (const { cache, tokenIds, ahead = 0 } of parts) this.cache.prepare(cache, tokenIds.length + ahead);
    const tables = stepTables(parts, this.cache.layouts, this.#limits.tokens);
    const drafts = this.#draftTables(parts, tables);
    const images = this.#imageTokenId === undefined ? undefined : stepImages(imageParts(batch), this.config.hiddenSize);
    const ngrams = this.engram?.inputs(ngramParts(batch));
    this.engram?.prefetch(upcomingNgrams(batch));
    const step = {
      sizes: { ...tables.sizes, ...drafts?.sizes, ...images?.sizes },
      inputs: { ...tables.inputs, ...drafts?.inputs, ...ngrams?.inputs, ...images?.inputs },
      late: ngrams?.late ?? {},
    };
    if ((await this.program.run(step, signal)) === "stopped") throw signal!.reason;
  }

  #draftTables(parts: readonly DraftingPart[], tables: StepTables): StepTables | undefined {
    if (!this.drafts) return undefined;
    return this.config.architecture === "deepseek-v4"
      ? pairTables(parts, this.cache.layouts, tables)
      : blockTables(parts, this.config.drafter!);
  }

  async #run(batch: readonly Append[], signal: AbortSignal | undefined): Promise<Float32Array[][]> {
    const parts = batch.map(({ sequence, tokenIds, outputs }) => ({
      cache: sequence.cache,
      tokenIds: this.#read(tokenIds),
      outputs,
    }));
    await this.#compute(parts, batch, signal);
    for (const { sequence, tokenIds } of batch) sequence.remember(tokenIds);

    const read = this.program.read("logits"); // a copy already
    const logits = read instanceof Float32Array ? read : Float32Array.from(read);
    const vocabSize = this.config.vocabSize;
    let row = 0;
    return batch.map(({ outputs }) =>
      Array.from({ length: outputs }, () => logits.subarray(row * vocabSize, ++row * vocabSize)),
    );
  }

  #checkTokens(tokenIds: readonly number[]): void {
    const mayBeImage = this.#imageTokenId !== undefined;
    const isKnown = (id: number) => (id >= 0 && id < this.config.vocabSize) || (mayBeImage && isContentId(id));
    const wrong = tokenIds.find((id) => !Number.isInteger(id) || !isKnown(id));
    if (wrong === undefined) return;
    throw new RequestError(`The token id ${wrong} is not in the vocabulary`, {
      code: "token-id",
      hint: `Give whole numbers from 0 to ${this.config.vocabSize - 1}`,
    });
  }

  /** Tokens as the model reads them. */
  #read(tokenIds: readonly number[]): readonly number[] {
    const imageTokenId = this.#imageTokenId;
    return imageTokenId === undefined ? tokenIds : tokenIds.map((id) => vocabularyId(id, imageTokenId));
  }

  #makeRoom(parts: readonly DraftingPart[]): void {
    const tokens = parts.reduce((total, part) => total + part.tokenIds.length, 0);
    const longest = Math.max(...parts.map(({ cache, tokenIds, ahead = 0 }) => cache.length + tokenIds.length + ahead));
    const wanted = parts.reduce((total, part) => total + part.outputs, 0);
    const { tokens: roomTokens, sequences, outputs, context } = this.#limits;
    if (tokens <= roomTokens && parts.length <= sequences && wanted <= outputs && longest <= context) return;
    const roomContext = longest <= context ? context : Math.max(longest, 2 * context);
    this.#limits = {
      tokens: Math.max(tokens, Math.min(roomTokens, stepTokensAt(roomContext, this.tokensPerScore))),
      // In powers of two: a batch that fills up a sequence at a time makes room a few times only.
      sequences: Math.max(2 ** Math.ceil(Math.log2(parts.length)), sequences),
      outputs: Math.max(2 ** Math.ceil(Math.log2(wanted)), outputs),
      context: roomContext,
    };
    this.program.reserve(this.#limitsOf(cacheLayouts(this.program.graph)));
  }

  #limitsOf(layouts: readonly CacheLayout[]): Sizes {
    const { tokens, sequences } = this.#limits;
    const images = this.#imageTokenId === undefined ? {} : { imageRows: tokens };
    const limits = { ...stepLimits(layouts, this.#limits), ...images };
    if (!this.drafts) return limits;
    if (this.config.architecture === "deepseek-v4") return { ...limits, pairs: tokens, drafts: sequences };
    return { ...limits, drafts: sequences * this.config.drafter!.blockSize };
  }
}

function requireDrafter(config: ModelConfig, drafts: boolean): void {
  const has = config.architecture === "deepseek-v4.1" ? config.drafter !== undefined : config.numMtpModules > 0;
  if (drafts && !has) throw new DeviceError("The model has no drafter", { code: "no-drafter" });
}

function imageParts(batch: readonly Append[]): ImagePart[] {
  return batch.map(({ sequence, tokenIds }) => ({ before: sequence.tokenIds, tokenIds, images: sequence.images }));
}

function ngramParts(batch: readonly Append[]): NgramPart[] {
  return batch.map(({ sequence, tokenIds }) => ({ before: sequence.tokenIds, tokenIds }));
}

function upcomingNgrams(batch: readonly Append[]): NgramPart[] {
  return batch
    .filter(({ upcoming }) => upcoming?.length)
    .map(({ sequence, tokenIds, upcoming }) => ({
      before: [...sequence.tokenIds.slice(-longestNgram), ...tokenIds],
      tokenIds: upcoming!,
    }));
}

/** Tokens that any n-gram memory looks back at most. */
const longestNgram = 8;

const noImages: ImageRows = new Map();

/** A sequence of tokens and what the model remembers of it. The tokens of images have ids of their own (vision/content-ids.ts). */
export class Sequence {
  readonly #runner: ModelRunner;
  readonly cache: SequenceCache;
  /** The images whose tokens are still to be computed, or may have to be again. */
  images: ImageRows = noImages;
  #tokenIds: number[];

  constructor(runner: ModelRunner, cache: SequenceCache, tokenIds: number[]) {
    this.#runner = runner;
    this.cache = cache;
    this.#tokenIds = tokenIds;
  }

  get tokenIds(): readonly number[] {
    return this.#tokenIds;
  }

  get length(): number {
    return this.#tokenIds.length;
  }

  /** A sequence with the same tokens that goes its own way; memory is shared until one of the two writes. */
  fork(): Sequence {
    const fork = new Sequence(this.#runner, this.cache.fork(), this.#tokenIds.slice());
    fork.images = this.images;
    return fork;
  }

  /** The tokens of all images are computed, and will not have to be again. */
  forgetImages(): void {
    this.images = noImages;
  }

  /**
   * Forgets the last `count` tokens. Costs nothing within the cache's margin; further back the rest of the sequence is
   * computed again before the next step, with the same result.
   */
  rewind(count: number): void {
    if (!Number.isInteger(count) || count < 0 || count > this.length) {
      throw new RequestError(`Cannot wind a sequence of ${this.length} tokens back by ${count}`, { code: "rewind" });
    }
    this.#tokenIds.length -= count;
    if (this.cache.length <= this.length) return;
    if (this.cache.canRewindTo(this.length)) this.cache.rewindTo(this.length);
    else this.cache.clear();
  }

  /**
   * Keeps the first `length` tokens, or none if the cache cannot go back so far. Returns how many are kept; the caller appends
   * the rest again.
   */
  keep(length: number): number {
    const kept = this.cache.length === this.length && this.cache.canRewindTo(length) ? length : 0;
    this.rewind(this.length - kept);
    return kept;
  }

  /** Computes tokens that the cache lost when the sequence was wound back far. */
  async recompute(signal?: AbortSignal): Promise<void> {
    if (this.cache.length === this.length) return;
    const all = this.#tokenIds;
    this.#tokenIds = all.slice(0, this.cache.length);
    try {
      const tokenIds = all.slice(this.cache.length);
      await this.#runner.append({ sequence: this, tokenIds, outputs: 0 }, signal ? { signal } : {});
    } finally {
      this.#tokenIds = all; // what was not computed is still part of the sequence
    }
  }

  /** After a step: the tokens are part of the sequence. */
  remember(tokenIds: readonly number[]): void {
    this.cache.advance(tokenIds.length);
    for (const id of tokenIds) this.#tokenIds.push(id);
  }

  [Symbol.dispose](): void {
    this.cache.clear();
    this.forgetImages();
    this.#tokenIds = [];
  }
}
