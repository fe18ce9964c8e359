/** Conversations of a small model in a prefix cache on disk, whose tokens follow from a number. */
import assert from "node:assert/strict";
import { PrefixCache } from "../src/engine/cache/prefix-cache.ts";
import type { ModelRunner } from "../src/engine/model-runner.ts";
import { randomNumbers, smallConfigs } from "./small-model.ts";

/** A cache on disk alone: whatever is asked for is read. */
export function openOnDisk(runner: ModelRunner, directory: string): Promise<PrefixCache> {
  const store = { directory, budgetBytes: 1 << 30, segmentBytes: 256 << 10, reserveBytes: 0 };
  return PrefixCache.open({ runner, modelDigest: "m", memoryBudgetBytes: 0, store, now: () => 0 });
}

/** The tokens of conversation `c`. Every third one begins like the one before it. */
export function conversationTokens(c: number, length: number): number[] {
  const [own, shared] = [randomNumbers(c + 1000), randomNumbers(c - (c % 3) + 1000)];
  const { vocabSize } = smallConfigs.v4;
  return Array.from({ length }, (_, t) => Math.floor((t < 200 ? shared() : own()) * vocabSize));
}

/** Computes a conversation as far as it is not known, and remembers its end. */
export async function computeConversation(cache: PrefixCache, runner: ModelRunner, c: number, length: number) {
  const tokenIds = conversationTokens(c, length);
  using sequence = await cache.resume("a", [...tokenIds, 0]);
  await runner.append({ sequence, tokenIds: tokenIds.slice(sequence.length), outputs: 0 });
  cache.remember("a", sequence, { isFinal: true });
}

/** The logits of a token behind a conversation, without any cache. */
export async function coldLogits(runner: ModelRunner, c: number, length: number): Promise<Float32Array> {
  using cold = runner.createSequence();
  const [logits] = await runner.append({ sequence: cold, tokenIds: [...conversationTokens(c, length), 0], outputs: 1 });
  return logits!;
}

/** Tokens of a conversation that the cache knew; the logits behind them must be `expected`, bit for bit. */
export async function assertResumed(
  cache: PrefixCache,
  runner: ModelRunner,
  [c, length]: readonly [number, number],
  expected: Float32Array,
  where: string,
): Promise<number> {
  const tokenIds = [...conversationTokens(c, length), 0];
  using sequence = await cache.resume("a", tokenIds);
  const known = sequence.length;
  const [logits] = await runner.append({ sequence, tokenIds: tokenIds.slice(known), outputs: 1 });
  assert.deepEqual(logits, expected, `${where}: conversation ${c} of ${length} tokens, ${known} known`);
  return known;
}
