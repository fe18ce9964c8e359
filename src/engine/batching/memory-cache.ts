/** A sequence cache that remembers nothing: every prompt is computed anew. For where no prefix cache is wanted. */
import type { ModelRunner, Sequence } from "../model-runner.ts";
import { type CacheCounters, noCache } from "./engine-port.ts";
import type { SequenceCachePort } from "./sequence-cache-port.ts";

export class MemoryCache implements SequenceCachePort {
  readonly isForgetful = true;
  readonly #runner: ModelRunner;
  #lookups = 0;

  constructor(runner: ModelRunner) {
    this.#runner = runner;
  }

  async resume(): Promise<Sequence> {
    this.#lookups++;
    return this.#runner.createSequence();
  }

  remember(): void {}

  get counters(): CacheCounters {
    return { ...noCache, lookups: this.#lookups };
  }

  async flush(): Promise<void> {}

  async close(): Promise<void> {}
}
