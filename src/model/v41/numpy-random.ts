/**
 * Integers as numpy's default_rng(seed).integers(0, bound) draws them: a seed sequence fills the state of a permuted
 * congruential generator (O'Neill 2014, PCG XSL RR 128/64), whose numbers are scaled without bias (Lemire 2019, arXiv
 * 1805.10941). Constants of the Engram tables are defined by these draws.
 */
const mask32 = (1n << 32n) - 1n;
const mask64 = (1n << 64n) - 1n;
const mask128 = (1n << 128n) - 1n;
const multiplier = 0x2360ed051fc65da44385df649fccf645n;

/** `count` whole numbers from 0 to `bound` - 1; `bound` is above 2^32 (numpy draws smaller ones in another way) or 1. */
export function permutedCongruentialIntegers(seed: number, bound: bigint, count: number): bigint[] {
  if (bound === 1n) return new Array<bigint>(count).fill(0n);
  const next = permutedCongruentialGenerator(seedWords(seed, 8));
  return Array.from({ length: count }, () => {
    const threshold = ((1n << 64n) - bound) % bound;
    for (;;) {
      const product = next() * bound;
      if ((product & mask64) >= threshold) return product >> 64n;
    }
  });
}

/** 64-bit numbers; the first two words of state are where it starts, the others which of the sequences it is. */
function permutedCongruentialGenerator(words: readonly bigint[]): () => bigint {
  const pair = (i: number) => words[i]! | (words[i + 1]! << 32n);
  const increment = ((((pair(4) << 64n) | pair(6)) << 1n) | 1n) & mask128;
  let state = 0n;
  const step = () => {
    state = (state * multiplier + increment) & mask128;
  };
  step();
  state = (state + ((pair(0) << 64n) | pair(2))) & mask128;
  step();
  return () => {
    step();
    const folded = (state >> 64n) ^ (state & mask64);
    const turn = state >> 122n;
    return ((folded >> turn) | (folded << ((64n - turn) & 63n))) & mask64;
  };
}

/** numpy's SeedSequence: a pool of four words that every word of the seed is mixed into, read out as `count` words. */
function seedWords(seed: number, count: number): bigint[] {
  const entropy = [BigInt(seed) & mask32, BigInt(seed) >> 32n];
  let hashConstant = 0x43b0d7e5n;
  const hash = (value: bigint) => {
    const mixed = value ^ hashConstant;
    hashConstant = (hashConstant * 0x931e8875n) & mask32;
    const product = (mixed * hashConstant) & mask32;
    return product ^ (product >> 16n);
  };
  const mix = (x: bigint, y: bigint) => {
    const mixed = (0xca01f9ddn * x - 0x4973f715n * y) & mask32;
    return mixed ^ (mixed >> 16n);
  };
  const pool = Array.from({ length: 4 }, (_, i) => hash(entropy[i] ?? 0n));
  for (let from = 0; from < 4; from++)
    for (let to = 0; to < 4; to++) if (from !== to) pool[to] = mix(pool[to]!, hash(pool[from]!));
  let readConstant = 0x8b51f9ddn;
  return Array.from({ length: count }, (_, i) => {
    const mixed = pool[i % 4]! ^ readConstant;
    readConstant = (readConstant * 0x58f38dedn) & mask32;
    const product = (mixed * readConstant) & mask32;
    return product ^ (product >> 16n);
  });
}
