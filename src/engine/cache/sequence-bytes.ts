/** What the cache of a sequence takes in memory: a fixed part (windows, unfinished groups, half-filled pages) and a part a token. */
import { blockTokens, rowsPerPage } from "../../tensor/paging.ts";
import type { KvCache } from "./kv-cache.ts";

const float32Bytes = 4;

export function sequenceBytes(cache: KvCache): { bytesPerSequence: number; bytesPerToken: number } {
  let bytesPerSequence = 0;
  let bytesPerToken = 0;
  for (const { storage } of cache.program.graph.caches.values()) {
    const { width, layout } = storage;
    const bytesOfRow = width * float32Bytes;
    if (layout.reach === Number.POSITIVE_INFINITY) {
      bytesPerToken += bytesOfRow / layout.tokensPerRow;
      bytesPerSequence += (bytesOfRow * blockTokens) / layout.tokensPerRow;
    } else {
      // Its first and its last page may hold a single row that counts.
      bytesPerSequence += bytesOfRow * (layout.reach + cache.maxRewind + 2 * rowsPerPage(layout));
    }
  }
  return { bytesPerSequence, bytesPerToken };
}
