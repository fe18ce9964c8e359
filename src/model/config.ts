/**
 * What a checkpoint's config.json says about the network, read once (spec section 2). Everything behind this file speaks
 * these names; Hugging Face's snake_case keys stay here.
 */

/** How the attention of a V4 layer reaches beyond its window: not at all, by entries of 4 tokens, by entries of 128. */
export type CompressRatio = 0 | 4 | 128;

/** The same in V4.1: not at all, or by groups of 1 or 2 tokens that several layers share. */
export type GroupRatio = 0 | 1 | 2;

/** Plain rotary frequencies, or YaRN's interpolation of them (spec section 7). */
export interface RopeConfig {
  readonly theta: number;
  readonly yarn: YarnConfig | undefined;
}

export interface YarnConfig {
  readonly factor: number;
  readonly betaFast: number;
  readonly betaSlow: number;
  /** Tokens of context that the unscaled frequencies were trained for. */
  readonly originalContext: number;
}

/** What both generations say. */
interface CommonConfig {
  readonly vocabSize: number;
  readonly hiddenSize: number;
  readonly numLayers: number;
  readonly numHeads: number;
  readonly headDim: number;
  /** The last this many channels of a head are rotated. */
  readonly ropeHeadDim: number;
  readonly queryLoraRank: number;
  readonly outputGroups: number;
  readonly outputLoraRank: number;
  readonly slidingWindow: number;
  readonly indexNumHeads: number;
  readonly indexHeadDim: number;
  readonly indexTopK: number;
  readonly hcMult: number;
  readonly hcSinkhornIterations: number;
  readonly hcEps: number;
  readonly numExperts: number;
  readonly numExpertsPerToken: number;
  readonly numSharedExperts: number;
  readonly moeIntermediateSize: number;
  readonly normalizeTopK: boolean;
  readonly routedScalingFactor: number;
  /** Bound of the SwiGLU inputs; 0 means none. */
  readonly swigluLimit: number;
  /** Rotary frequencies of window-only layers and of the MTP module. */
  readonly rope: RopeConfig;
  /** Rotary frequencies of everything in layers that compress. */
  readonly compressRope: RopeConfig;
  readonly rmsNormEps: number;
  readonly maxPositionEmbeddings: number;
  /** Modules that draft: those of multi-token prediction, or the stages of DSpark. */
  readonly numMtpModules: number;
  /** Rows and columns that share one FP8 scale in the checkpoint. */
  readonly fp8BlockSize: readonly [number, number];
  readonly bosTokenId: number;
  readonly eosTokenIds: readonly number[];
}

export interface V4Config extends CommonConfig {
  readonly architecture: "deepseek-v4";
  /** One a layer, without the entry of the MTP module. */
  readonly compressRatios: readonly CompressRatio[];
  /** One a layer: true where experts are chosen by token id. */
  readonly hashRouted: readonly boolean[];
}

export interface V41Config extends CommonConfig {
  readonly architecture: "deepseek-v4.1";
  /** One a layer, without those of the drafter's stages. */
  readonly compressRatios: readonly GroupRatio[];
  /** Layers that make compressed entries and index keys; those above use them up to the next such layer. */
  readonly entrySourceLayers: readonly number[];
  /** Layers that select entries; those above use the selection up to the next such layer. */
  readonly indexSourceLayers: readonly number[];
  readonly candidatePool: CandidatePoolConfig | undefined;
  /** Divides the router's logits. */
  readonly gateTemperature: number;
  readonly engram: EngramConfig | undefined;
  /** The id of every token of an image; undefined for a model without vision. */
  readonly imageTokenId: number | undefined;
  readonly drafter: DrafterConfig | undefined;
  readonly rounding: Rounding;
}

export type ModelConfig = V4Config | V41Config;

/**
 * Which values are rounded to the codes that the model was trained with: what the caches hold and the indexer multiplies, and
 * on top of it the inputs of the matrices that are released in FP8 and FP4. "caches" is what the released model does everywhere.
 */
export type Rounding = "none" | "caches" | "caches-and-inputs";

/** The first choice of an indexer, in blocks of entries; later indexers choose inside it. */
export interface CandidatePoolConfig {
  readonly sourceLayer: number;
  readonly topBlocks: number;
  readonly blockSize: number;
}

/** The n-gram memory in front of some layers. */
export interface EngramConfig {
  readonly layers: readonly number[];
  /** Rows of each layer's table. */
  readonly tableRows: readonly number[];
  /** The longest n-gram that is looked up; the shortest has 2 tokens. */
  readonly maxNgram: number;
  /** Hash functions for each length. */
  readonly numHeads: number;
  /** Values of a table row. */
  readonly headDim: number;
  /** The primes of the hash functions are the ones from here on. */
  readonly firstPrime: number;
  readonly padTokenId: number;
  /** Ids after tokens that read alike have become one. */
  readonly compressedVocabSize: number;
}

/** DSpark: stages that draft a block of tokens at once. */
export interface DrafterConfig {
  readonly blockSize: number;
  /** Stands where a token of the block is not known yet. */
  readonly noiseTokenId: number;
  /** Layers whose incoming streams the stages read. */
  readonly featureLayers: readonly number[];
  readonly markovRank: number;
  readonly numExperts: number;
  readonly numExpertsPerToken: number;
}
