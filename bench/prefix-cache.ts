/** The prefix cache and its store: the disk, a resume from memory and from disk against computing, bytes that a conversation writes. */
import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { monitorEventLoopDelay } from "node:perf_hooks";
import { CacheRows } from "../src/engine/cache/cache-rows.ts";
import { PrefixCache } from "../src/engine/cache/prefix-cache.ts";
import { loadModel } from "../src/engine/load-model.ts";
import type { ModelRunner } from "../src/engine/model-runner.ts";
import { KvStore } from "../src/engine/store/kv-store.ts";
import { encodeDescription } from "../src/engine/store/record-index.ts";
import { blockKey, frontierKey, rootKey } from "../src/engine/store/record-keys.ts";
import { medianSeconds, report } from "./measure.ts";

export async function benchPrefixCache(): Promise<void> {
  const directory = await mkdtemp(join(tmpdir(), "freehold-bench-kv-"));
  try {
    await benchStore(join(directory, "large"), 1_761_280, 600, "a block of V4-Flash, float32");
    await benchStore(join(directory, "small"), 25_088, 40_000, "a block of the embedded model");
    await benchConversation(join(directory, "conversation"));
  } finally {
    await rm(directory, { recursive: true, force: true });
  }
}

const mega = 1e6;

/** Chains of 16 blocks with a frontier, a group each. */
async function benchStore(directory: string, blockBytes: number, blocks: number, what: string): Promise<void> {
  const open = () => KvStore.open({ directory, budgetBytes: 8e9, reserveBytes: 0, now: () => performance.now() });
  const payload = Buffer.alloc(blockBytes, 0x5a);
  const root = rootKey("bench");
  let store = await open();
  let started = performance.now();
  for (let chain = 0; chain < blocks / 16; chain++) {
    await store.group(async (put) => {
      let parent = root;
      for (let b = 0; b < 16; b++) {
        const key = blockKey(parent, [chain, b], 0, 2);
        await put({ type: "block", key, description: encodeDescription({ parent, position: (b + 1) * 128 }), payload });
        parent = key;
      }
      const description = encodeDescription({ parent, position: 16 * 128 });
      await put({ type: "frontier", key: frontierKey(parent, [], 0, 0), description, payload });
    });
  }
  const bytes = store.totalBytes;
  const written = (performance.now() - started) / 1000;
  report("store, append", `${(bytes / written / mega).toFixed(0)} MB/s with an fdatasync a group of 16 (${what})`);
  await store.close();
  started = performance.now();
  store = await open();
  report(
    "store, open",
    `${(performance.now() - started).toFixed(0)} ms with ${(bytes / 1e9).toFixed(2)} GB of segments`,
  );
  started = performance.now();
  let read = 0;
  for (const record of store.index.blocks.values()) read += (await store.read(record))!.length;
  const seconds = (performance.now() - started) / 1000;
  report("store, read", `${(read / seconds / 1e9).toFixed(2)} GB/s, every payload checked`);
  await store.close();
}

const promptTokens = 2000;
const turns = 20;

async function benchConversation(directory: string): Promise<void> {
  using model = await loadModel();
  const { runner } = model;
  const rows = await CacheRows.of(runner);
  report("bytes a token in blocks", `${(rows.blockBytes / 128).toFixed(0)} (embedded model, float32)`);
  report(
    "a frontier",
    `${rows.frontierBytes(1920)} bytes at a border of 128 tokens, ${rows.frontierBytes(2000)} at 2,000 tokens`,
  );
  const open = () =>
    PrefixCache.open({
      runner,
      modelDigest: "bench",
      memoryBudgetBytes: 1e9,
      store: { directory, budgetBytes: 1e9, reserveBytes: 0 },
    });
  let cache = await open();
  const tokenIds = Array.from({ length: promptTokens + 1 }, (_, i) => 300 + ((i * 37) % 3000));
  await talk(cache, runner, rows, tokenIds);
  const cold = await medianSeconds(() => prefill(runner, tokenIds));
  const prompt = (seconds: number) =>
    `${(1000 * seconds).toFixed(1)} ms, ${((100 * seconds) / cold).toFixed(1)} % of cold`;
  report("2,000 tokens, computed", `${(1000 * cold).toFixed(0)} ms`);
  report("2,000 tokens, from memory", prompt(await medianSeconds(() => resume(cache, tokenIds), 20)));
  await cache.close();
  const times: number[] = [];
  for (let run = 0; run < 9; run++) {
    cache = await open();
    const started = performance.now();
    await resume(cache, tokenIds);
    times.push((performance.now() - started) / 1000);
    await cache.close();
  }
  report("2,000 tokens, from disk", prompt(times.sort((a, b) => a - b)[4]!));
}

/** Twenty turns of 100 tokens, each remembered as an answer's end. */
async function talk(cache: PrefixCache, runner: ModelRunner, rows: CacheRows, tokenIds: number[]): Promise<void> {
  const delay = monitorEventLoopDelay({ resolution: 1 });
  delay.enable();
  let snapshots = 0;
  for (let turn = 1; turn <= turns; turn++) {
    const end = (turn * promptTokens) / turns;
    using sequence = await cache.resume("a", tokenIds.slice(0, end + 1));
    await runner.append({ sequence, tokenIds: tokenIds.slice(sequence.length, end), outputs: 0 });
    cache.remember("a", sequence, { isFinal: true });
    await cache.flush();
    snapshots += Math.floor(end / 128) * rows.blockBytes + rows.frontierBytes(end);
  }
  delay.disable();
  const written = cache.counters.diskWrittenBytes;
  const conversation = (bytes: number) => `${(bytes / mega).toFixed(2)} MB`;
  report(
    "written in 20 turns of 100 tokens",
    `${conversation(written)}; whole snapshots would be ${conversation(snapshots)}, ${(snapshots / written).toFixed(1)} times as much`,
  );
  report("event loop, wait meanwhile", `most ${(delay.max / 1e6).toFixed(1)} ms`);
}

async function resume(cache: PrefixCache, tokenIds: number[]): Promise<void> {
  using sequence = await cache.resume("a", tokenIds);
  if (sequence.length !== promptTokens) throw new Error(`${sequence.length} tokens were found`);
}

async function prefill(runner: ModelRunner, tokenIds: number[]): Promise<void> {
  using sequence = runner.createSequence();
  await runner.append({ sequence, tokenIds: tokenIds.slice(0, promptTokens), outputs: 0 });
}
