/**
 * The hash functions of Engram: the last 2, 3 ... tokens of every position, by their compressed ids, become rows of a layer's
 * table, `numHeads` rows for each length
 *   tokenIds [history + tokens] -> rows [tokens, (maxNgram - 1) * numHeads], i32
 * h = t_0 M_0; then for each further token back h = h xor t_i M_i, row = h mod prime + offset of that prime. All numbers have
 * 63 bits: BigInt. The multipliers are drawn by numpy's default generator, the primes are the next free ones.
 */
import { permutedCongruentialIntegers } from "./numpy-random.ts";

interface EngramSizes {
  readonly layers: readonly number[];
  readonly maxNgram: number;
  readonly numHeads: number;
  readonly firstPrime: number;
  readonly compressedVocabSize: number;
}

/** The constants of one layer. */
export interface EngramConstants {
  /** One for each token back, the token itself first. */
  readonly multipliers: readonly bigint[];
  /** By the number of tokens (2 first), then by head. */
  readonly primes: readonly (readonly number[])[];
  /** Where the rows of each prime begin, in the same order as one list. */
  readonly offsets: readonly number[];
  /** Rows that hashes can name. */
  readonly rows: number;
}

export function engramConstants({
  layers,
  maxNgram,
  numHeads,
  firstPrime,
  compressedVocabSize,
}: EngramSizes): EngramConstants[] {
  // Each length starts again at the first prime, but none is used twice: in effect they go on rising.
  let last = firstPrime - 1;
  const bound = ((1n << 63n) - 1n) / BigInt(compressedVocabSize) / 2n;
  return layers.map((layer) => {
    const primes = Array.from({ length: maxNgram - 1 }, () =>
      Array.from({ length: numHeads }, () => {
        last = primeAfter(last);
        return last;
      }),
    );
    const drawn = permutedCongruentialIntegers(10_007 * layer, bound < 1n ? 1n : bound, maxNgram);
    let rows = 0;
    const offsets = primes.flat().map((prime) => {
      rows += prime;
      return rows - prime;
    });
    return { multipliers: drawn.map((n) => 2n * n + 1n), primes, offsets, rows };
  });
}

function primeAfter(n: number): number {
  for (let candidate = n + 1; ; candidate++) if (isPrime(candidate)) return candidate;
}

function isPrime(n: number): boolean {
  if (n < 4) return n >= 2;
  if (n % 2 === 0) return false;
  for (let divisor = 3; divisor * divisor <= n; divisor += 2) if (n % divisor === 0) return false;
  return true;
}

/** Marks a position that no n-gram reaches across: part of an image, or before the beginning. */
export const deadId = -1;

/** Hashes token ids for one layer of a model. */
export class EngramHash {
  /** Rows that a position names. */
  readonly columns: number;
  readonly #multipliers: readonly bigint[];
  readonly #primes: readonly (readonly bigint[])[];
  readonly #offsets: readonly number[];
  readonly #padId: bigint;

  /** `padId` is the compressed id of the pad token. */
  constructor({ multipliers, primes, offsets }: EngramConstants, padId: number) {
    this.#multipliers = multipliers;
    this.#primes = primes.map((ofLength) => ofLength.map(BigInt));
    this.#offsets = offsets;
    this.#padId = BigInt(padId);
    this.columns = offsets.length;
  }

  /** Rows of `into` for the positions from `first` on; `compressedIds` begins with what came before them. */
  rows(compressedIds: ArrayLike<number>, first: number, into: Int32Array): void {
    for (let p = first; p < compressedIds.length; p++) {
      this.#position(compressedIds, p, into.subarray((p - first) * this.columns, (p - first + 1) * this.columns));
    }
  }

  #position(compressedIds: ArrayLike<number>, p: number, into: Int32Array): void {
    let isDead = false;
    let hash = 0n;
    let column = 0;
    for (const [back, multiplier] of this.#multipliers.entries()) {
      const id = back > p ? deadId : compressedIds[p - back]!;
      isDead ||= id === deadId;
      hash ^= (isDead ? this.#padId : BigInt(id)) * multiplier;
      if (back === 0) continue;
      for (const prime of this.#primes[back - 1]!) {
        into[column] = Number(hash % prime) + this.#offsets[column]!;
        column++;
      }
    }
  }
}
