/**
 * The keys of a V4.1 config that V4 has not: which layers own compressed entries and which select among them, the candidate
 * pool, Engram, the drafter. The schedule is checked here: a layer that shares entries finds them below, with its own ratio.
 */
import type { CandidatePoolConfig, DrafterConfig, EngramConfig, GroupRatio, V41Config } from "./config.ts";
import type { ConfigReader } from "./config-reader.ts";
import { engramConstants } from "./v41/engram-hash.ts";

type Common = Pick<V41Config, "numLayers" | "numMtpModules" | "vocabSize">;
type Parts = Pick<
  V41Config,
  | "architecture"
  | "compressRatios"
  | "entrySourceLayers"
  | "indexSourceLayers"
  | "candidatePool"
  | "gateTemperature"
  | "engram"
  | "imageTokenId"
  | "drafter"
  | "rounding"
>;

export function readV41Parts(r: ConfigReader, top: ConfigReader, common: Common): Parts {
  const { numLayers, vocabSize } = common;
  const layers = { most: numLayers - 1, mostItems: numLayers };
  const ratios = r.counts("compress_ratios", { most: 2, mostItems: 2048 });
  r.require(ratios.length >= numLayers, `compress_ratios has ${ratios.length} entries for ${numLayers} layers`);
  const parts: Parts = {
    architecture: "deepseek-v4.1",
    compressRatios: ratios.slice(0, numLayers) as GroupRatio[], // 0 to 2, as read above
    entrySourceLayers: r.counts("kv_source_layer_ids", layers),
    indexSourceLayers: r.counts("index_source_layer_ids", layers),
    candidatePool: readCandidatePool(r),
    gateTemperature: r.number("gate_temp", { otherwise: 1, positive: true }),
    engram: readEngram(r, numLayers, vocabSize),
    imageTokenId:
      top.section("vision_config") === undefined ? undefined : top.count("image_token_id", { least: 0, most: 2 ** 24 }),
    drafter: readDrafter(r, common),
    rounding: "caches",
  };
  checkSchedule(r, parts);
  return parts;
}

function readCandidatePool(r: ConfigReader): CandidatePoolConfig | undefined {
  const source = r.raw("candidate_source_layer_id");
  if (source === undefined || source === null || (typeof source === "number" && source < 0)) return undefined;
  return {
    sourceLayer: r.count("candidate_source_layer_id", { least: 0, most: 1023 }),
    topBlocks: r.count("candidate_topk_blocks", { most: 2 ** 24 }),
    blockSize: r.count("candidate_block_size", { most: 65536 }),
  };
}

function readEngram(r: ConfigReader, numLayers: number, vocabSize: number): EngramConfig | undefined {
  const layers = r.counts("engram_layer_ids", { most: numLayers - 1, mostItems: 16 });
  if (layers.length === 0) return undefined;
  const padKey = r.raw("engram_pad_token_id") === undefined ? "engram_pad_id" : "engram_pad_token_id";
  const engram = {
    layers,
    tableRows: r.counts("engram_num_embeddings", { least: 1, most: 2 ** 31 - 1, mostItems: 16 }),
    maxNgram: r.count("engram_max_ngram_size", { least: 2, most: 8 }),
    numHeads: r.count("engram_n_heads", { most: 64 }),
    headDim: r.count("engram_head_dim", { most: 65536 }),
    firstPrime: r.count("engram_vocab_size", { least: 2, most: 2 ** 30 }),
    padTokenId: r.count(padKey, { least: 0, most: vocabSize - 1 }),
    compressedVocabSize: r.count("engram_compressed_vocab_size", { most: vocabSize }),
  };
  r.require(isRising(layers), "engram_layer_ids does not rise");
  r.require(engram.tableRows.length === layers.length, "engram_num_embeddings has not one entry for each Engram layer");
  if (r.problems.length > 0) return undefined;
  for (const [i, { rows }] of engramConstants(engram).entries()) {
    const found = engram.tableRows[i]!;
    r.require(found >= rows, `engram_num_embeddings is ${found} for layer ${layers[i]}, whose hashes need ${rows}`);
  }
  return engram;
}

function readDrafter(r: ConfigReader, { numLayers, numMtpModules, vocabSize }: Common): DrafterConfig | undefined {
  if (numMtpModules === 0) return undefined;
  const drafter = {
    blockSize: r.count("dspark_block_size", { most: 64 }),
    noiseTokenId: r.count("dspark_noise_token_id", { least: 0, most: vocabSize - 1 }),
    featureLayers: r.counts("dspark_target_layer_ids", { most: numLayers - 1, mostItems: 16 }),
    markovRank: r.count("dspark_markov_rank", { most: 65536 }),
    numExperts: r.count("dspark_n_routed_experts", { most: 65536 }),
    numExpertsPerToken: r.count("dspark_num_experts_per_tok", { most: 65536 }),
  };
  r.require(isRising(drafter.featureLayers), "dspark_target_layer_ids does not rise");
  r.require(drafter.featureLayers.length > 0, "dspark_target_layer_ids is empty");
  r.require(
    drafter.numExpertsPerToken <= drafter.numExperts,
    "dspark_num_experts_per_tok is larger than dspark_n_routed_experts",
  );
  return drafter;
}

function checkSchedule(
  r: ConfigReader,
  { compressRatios, entrySourceLayers, indexSourceLayers, candidatePool }: Parts,
): void {
  r.require(isRising(entrySourceLayers), "kv_source_layer_ids does not rise");
  r.require(isRising(indexSourceLayers), "index_source_layer_ids does not rise");
  const notIndexing = entrySourceLayers.filter((layer) => !indexSourceLayers.includes(layer));
  r.require(notIndexing.length === 0, `kv_source_layer_ids ${notIndexing} are not in index_source_layer_ids`);
  let shared: GroupRatio = 0;
  for (const [layer, ratio] of compressRatios.entries()) {
    const isSource = entrySourceLayers.includes(layer);
    r.require(ratio > 0 || !(isSource || indexSourceLayers.includes(layer)), `the source layer ${layer} has ratio 0`);
    if (isSource) shared = ratio;
    if (ratio > 0) r.require(ratio === shared, `layer ${layer} has ratio ${ratio}, its source below has ${shared}`);
  }
  if (candidatePool === undefined) return;
  r.require(
    candidatePool.sourceLayer === entrySourceLayers.at(-1),
    `candidate_source_layer_id ${candidatePool.sourceLayer} is not the last of kv_source_layer_ids`,
  );
}

function isRising(numbers: readonly number[]): boolean {
  return numbers.every((n, i) => i === 0 || n > numbers[i - 1]!);
}
