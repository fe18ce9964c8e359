/**
 * The prompt as a chain of fingerprints, one for each whole block of 128 tokens, so that the scheduler can see that two requests
 * begin alike without knowing a token of them (its traces hold no text). A fingerprint stands for everything up to its block.
 * 53 bits by multiplying and mixing: a collision would let a request wait for nothing, never give a wrong result.
 */
import { blockTokens } from "../../tensor/paging.ts";

/** Fingerprints of the blocks of `tokenIds`; those of different namespaces have nothing in common. */
export function prefixBlocks(namespace: string, tokenIds: readonly number[]): number[] {
  let high = 0x9e3779b9;
  let low = 0x85ebca6b;
  const mix = (value: number) => {
    high = Math.imul(high ^ value, 0xcc9e2d51);
    high ^= high >>> 15;
    low = Math.imul(low ^ value ^ (high >>> 7), 0x1b873593);
    low ^= low >>> 13;
  };
  for (let i = 0; i < namespace.length; i++) mix(namespace.charCodeAt(i));
  const blocks: number[] = [];
  for (let t = 0; t + blockTokens <= tokenIds.length; t += blockTokens) {
    for (let i = t; i < t + blockTokens; i++) mix(tokenIds[i]!);
    blocks.push((high >>> 11) * 2 ** 32 + (low >>> 0));
  }
  return blocks;
}

/** Tokens that both begin with, in whole blocks. Each fingerprint holds those before it: halving finds the last common one. */
export function commonTokens(a: readonly number[], b: readonly number[]): number {
  let low = 0;
  let high = Math.min(a.length, b.length);
  while (low < high) {
    const middle = (low + high + 1) >> 1;
    if (a[middle - 1] === b[middle - 1]) low = middle;
    else high = middle - 1;
  }
  return low * blockTokens;
}
