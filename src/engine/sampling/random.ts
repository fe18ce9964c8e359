/**
 * Random numbers addressed by (seed, index): splitmix64 (Steele, Lea & Flood 2014). The number for the i-th token of a request
 * depends on the request's seed and on i alone, so a request can be repeated whatever else runs, and wound back.
 */
const mask = (1n << 64n) - 1n;
const gamma = 0x9e3779b97f4a7c15n;

/** A uniform number in [0, 1) with 53 bits. `seed` is any safe integer. */
export function uniform(seed: number, index: number): number {
  let z = (BigInt(seed) + gamma * BigInt(index + 1)) & mask;
  z = ((z ^ (z >> 30n)) * 0xbf58476d1ce4e5b9n) & mask;
  z = ((z ^ (z >> 27n)) * 0x94d049bb133111ebn) & mask;
  return Number((z ^ (z >> 31n)) >> 11n) / 2 ** 53;
}

/** A seed for a request that gives none: 53 random bits. */
export function randomSeed(): number {
  const [high, low] = crypto.getRandomValues(new Uint32Array(2));
  return (high! >>> 11) * 2 ** 32 + low!;
}
