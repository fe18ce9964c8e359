/**
 * What a checkpoint's config.json says about the network, read once (spec section 2). Everything behind this file speaks
 * these names; Hugging Face's snake_case keys stay here.
 */

/** How the attention of a layer reaches beyond its window: not at all, by entries of 4 tokens, by entries of 128. */
export type CompressRatio = 0 | 4 | 128;

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

export interface ModelConfig {
  readonly architecture: "deepseek-v4";
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
  /** One a layer, without the entry of the MTP module. */
  readonly compressRatios: readonly CompressRatio[];
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
  /** One a layer: true where experts are chosen by token id. */
  readonly hashRouted: readonly boolean[];
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
  readonly numMtpModules: number;
  /** Rows and columns that share one FP8 scale in the checkpoint. */
  readonly fp8BlockSize: readonly [number, number];
  readonly bosTokenId: number;
  readonly eosTokenIds: readonly number[];
}
