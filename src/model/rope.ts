/**
 * Rotary frequencies: radians a token for each pair of channels. Plain (Su et al. 2021, arXiv 2104.09864), or with YaRN's
 * interpolation (Peng et al. 2023, arXiv 2309.00071) without its attention factor: V4 scales neither cosine nor logits,
 * and the interpolation is on at every length.
 */
import type { RopeConfig, YarnConfig } from "./config.ts";

export function ropeFrequencies({ theta, yarn }: RopeConfig, ropeHeadDim: number): number[] {
  return Array.from({ length: ropeHeadDim / 2 }, (_, pair) => {
    const base = theta ** ((-2 * pair) / ropeHeadDim);
    if (yarn === undefined) return base;
    const ramp = yarnRamp(yarn, theta, ropeHeadDim, pair);
    return base * (1 - ramp) + (base / yarn.factor) * ramp;
  });
}

/** 0 for pairs that turn often within the original context, 1 for those that never complete a turn. */
function yarnRamp(yarn: YarnConfig, theta: number, ropeHeadDim: number, pair: number): number {
  const pairOf = (turns: number) =>
    (ropeHeadDim * Math.log(yarn.originalContext / (2 * Math.PI * turns))) / (2 * Math.log(theta));
  const low = Math.max(Math.floor(pairOf(yarn.betaFast)), 0);
  const high = Math.min(Math.ceil(pairOf(yarn.betaSlow)), ropeHeadDim - 1);
  return Math.min(Math.max((pair - low) / (high === low ? 0.001 : high - low), 0), 1);
}
