/** A sequence cache of forks in memory for the engine's tests: exact, without limit, and every fork is given back by `close`. */
import type { CacheCounters } from "../../src/engine/batching/engine-port.ts";
import { MemoryCache } from "../../src/engine/batching/memory-cache.ts";
import type { SequenceCachePort } from "../../src/engine/batching/sequence-cache-port.ts";
import { commonPrefix } from "../../src/engine/generation.ts";
import type { ModelRunner, Sequence } from "../../src/engine/model-runner.ts";

export class ForkCache implements SequenceCachePort {
  readonly remembered: { namespace: string; sequence: Sequence; isFinal: boolean }[] = [];
  readonly #runner: ModelRunner;

  constructor(runner: ModelRunner) {
    this.#runner = runner;
  }

  async resume(namespace: string, tokenIds: readonly number[]): Promise<Sequence> {
    const start = tokenIds.slice(0, -1);
    const known = this.remembered
      .filter((entry) => entry.namespace === namespace)
      .map(({ sequence }) => sequence)
      .filter(({ length, tokenIds: ids }) => commonPrefix(ids, start) === length)
      .sort((a, b) => b.length - a.length);
    return known[0]?.fork() ?? this.#runner.createSequence();
  }

  remember(namespace: string, sequence: Sequence, { isFinal }: { isFinal: boolean }): void {
    this.remembered.push({ namespace, sequence: sequence.fork(), isFinal });
  }

  get counters(): CacheCounters {
    return new MemoryCache(this.#runner).counters;
  }

  async flush(): Promise<void> {}

  async close(): Promise<void> {
    for (const { sequence } of this.remembered.splice(0)) sequence[Symbol.dispose]();
  }
}
