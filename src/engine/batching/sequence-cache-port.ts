/**
 * What the batch engine needs of a prefix cache: a sequence that already holds as much of a prompt as was ever computed, and a
 * place to offer what was computed. A hit is bitwise equal to computing the tokens anew.
 */
import type { Sequence } from "../model-runner.ts";
import type { CacheCounters } from "./engine-port.ts";

export interface SequenceCachePort {
  /** True if `resume` never finds anything: then no request needs to wait for another one's prefix. */
  readonly isForgetful?: boolean;
  /**
   * A new sequence with the longest known start of `tokenIds`, at most `tokenIds.length - 1` tokens of it (the last token is
   * always computed: its logits are wanted). Never throws for a damaged or full disk: that is a miss.
   */
  resume(namespace: string, tokenIds: readonly number[]): Promise<Sequence>;
  /**
   * Remembers what the sequence holds now. The caller goes on with its sequence, which shares memory with what is remembered.
   * `isFinal`: the end of an answer or of a preempted request, worth the disk at once; otherwise a stop on the way.
   * `isPromptEnd`: the same prompt, and others that branch off at its end, will go on from before its last token.
   */
  remember(namespace: string, sequence: Sequence, options: { isFinal: boolean; isPromptEnd?: boolean }): void;
  /** Running sequences take so many bytes of the memory that both share: what is remembered gives way. */
  leaveRoom?(runningBytes: number): void;
  /** What a request that waits will find in memory is not given back before this is disposed of. */
  pin?(namespace: string, tokenIds: readonly number[]): Disposable;
  /** Bytes that could be given back for new sequences, and those in use by running ones. */
  readonly counters: CacheCounters;
  /** Everything that was remembered as final is on disk when this settles. */
  flush(): Promise<void>;
  close(): Promise<void>;
}
