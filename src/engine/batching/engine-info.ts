/** What a gateway must know of a model. */
import { modelParameters } from "../../model/parameters.ts";
import { parameterCounts } from "../memory-need.ts";
import type { Model } from "../model.ts";
import type { EngineInfo } from "./engine-port.ts";

export interface ServedAs {
  /** What guesses tokens ahead. */
  readonly drafter: string;
  /** What loading took. */
  readonly loadSeconds?: number;
  /** Images of a request at most. */
  readonly maxImages?: number;
}

export function engineInfo(model: Model, { drafter, loadSeconds = 0, maxImages = 100 }: ServedAs): EngineInfo {
  const { config, defaults, device, images } = model;
  const { eosTokenIds, ...sampling } = defaults;
  return {
    name: model.name,
    vocabSize: config.vocabSize,
    contextLength: model.contextLength,
    bosTokenId: config.bosTokenId,
    eosTokenIds: [...new Set([...config.eosTokenIds, ...eosTokenIds])],
    addsBeginOfSequence: model.addsBeginOfSequence,
    defaults: sampling,
    device: device.name,
    kernels: device.kernels,
    threads: device.threads,
    drafter,
    parameters: parameterCounts(modelParameters(config), config).total,
    loadSeconds,
    ...(images === undefined
      ? {}
      : { images: { most: maxImages, maxBytes: images.maxBytes, tokenId: images.config.imageTokenId } }),
  };
}
