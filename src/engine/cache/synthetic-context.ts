/**
 * A sequence whose caches are as long as if `length` tokens had been computed, filled with random rows: decoding behind it does the
 * work of such a context, without the hours of its prefill. What it says means nothing.
 */

import { blockTokens } from "../../tensor/paging.ts";
import type { ModelRunner, Sequence } from "../model-runner.ts";
import { RandomBytes } from "../random-weights.ts";
import { CacheRows } from "./cache-rows.ts";

export async function syntheticSequence(runner: ModelRunner, length: number, seed = 1): Promise<Sequence> {
  const random = new RandomBytes(seed);
  const rows = await CacheRows.of(runner);
  const { cache } = runner.createSequence();
  await runner.betweenSteps(() => {
    for (let block = 0; block < Math.floor(length / blockTokens); block++)
      rows.writeBlock(cache, block, randomValues(rows, rows.blockBytes, random));
    rows.writeFrontier(cache, length, randomValues(rows, rows.frontierBytes(length), random));
  });
  const { vocabSize } = runner.config;
  return runner.adoptSequence(
    cache,
    Array.from({ length }, (_, i) => (i * 7919 + 17) % vocabSize),
  );
}

/** Uniform numbers from -1 to 1 as the device stores them: what norms leave in a cache is about as large. */
function randomValues({ valueBytes }: CacheRows, bytes: number, random: RandomBytes): Uint8Array {
  const count = bytes / valueBytes;
  const words = new Int32Array(count);
  random.fill(new Uint8Array(words.buffer));
  const values = valueBytes === 8 ? new Float64Array(count) : new Float32Array(count);
  for (let i = 0; i < count; i++) values[i] = words[i]! / 2 ** 31;
  return new Uint8Array(values.buffer);
}
