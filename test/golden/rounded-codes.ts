/**
 * Where a float32 engine rounds a value of V4.1's caches to another code than float64 does. Sums in another order differ in their last
 * bits, and a value that close to the border of two codes falls to either side: that is the only reason for another code.
 */
import assert from "node:assert/strict";
import type { ModelRunner } from "../../src/engine/model-runner.ts";
import type { V41Config } from "../../src/model/config.ts";
import { recordTransformer } from "../../src/model/transformer.ts";

/** The labels of all that is rounded, in the order in which it is computed; what was rounded has ".exact" behind. */
export function roundedLabels(config: V41Config): string[] {
  return [...recordTransformer(config).labels.keys()]
    .filter((label) => label.endsWith(".exact"))
    .map((label) => label.slice(0, -".exact".length));
}

export function labelsToKeep(config: V41Config): string[] {
  return roundedLabels(config).flatMap((label) => [label, `${label}.exact`]);
}

/** What a step rounded: by label the codes as numbers, and the values before. */
export type Rounded = ReadonlyMap<string, { readonly codes: ArrayLike<number>; readonly exact: ArrayLike<number> }>;

export function readRounded({ program }: ModelRunner, labels: readonly string[]): Rounded {
  return new Map(
    labels.map((label) => [label, { codes: program.read(label), exact: program.read(`${label}.exact`) }] as const),
  );
}

/** Float32 sums of these models differ by less from float64 where nothing was rounded differently before: measured 2.1e-5 at most. */
const mostOfSums = 5e-5;

/**
 * Compares one token's rounded values with those of float64, up to the first label with another code: before that, and where the code
 * is another, the values that were rounded are the same but for the last bits. Returns that label.
 */
export function firstOtherCode(found: Rounded, expected: Rounded, where: string): string | undefined {
  for (const [label, { codes, exact }] of found) {
    const reference = expected.get(label)!;
    let isOther = false;
    for (let i = 0; i < codes.length; i++) {
      const apart = Math.abs(exact[i]! - reference.exact[i]!);
      assert.ok(
        apart <= mostOfSums * Math.max(1, Math.abs(exact[i]!)),
        `${where}, ${label}[${i}] before rounding: ${exact[i]}, ${reference.exact[i]}`,
      );
      isOther ||= codes[i] !== Math.fround(reference.codes[i]!);
    }
    if (isOther) return label;
  }
  return undefined;
}

/** The first position that sees another code; Infinity if there is none. A group is seen from its last token on. */
export function firstOtherPosition(
  found: Rounded,
  expected: Rounded,
  { compressRatios, headDim, indexHeadDim, indexNumHeads }: V41Config,
): number {
  let first = Number.POSITIVE_INFINITY;
  for (const [label, { codes }] of found) {
    const reference = expected.get(label)!.codes;
    const at = Array.from(codes).findIndex((code, i) => code !== Math.fround(reference[i]!));
    if (at < 0) continue;
    const layer = Number(label.split(".")[1]);
    const tokensOfRow = label.endsWith(".closed") ? compressRatios[layer]! : 1;
    const width = label.endsWith(".queries")
      ? indexNumHeads * indexHeadDim
      : label.includes(".indexer.")
        ? indexHeadDim
        : headDim;
    first = Math.min(first, (Math.floor(at / width) + 1) * tokensOfRow - 1);
  }
  return first;
}
