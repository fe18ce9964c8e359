/**
 * One timer for all silent streams: proxies and clients give up on a connection that says nothing while a long prompt is read. A
 * stream that was silent for a second gets its ping.
 */
export interface SilentStream {
  /** Milliseconds of the clock at the last write. */
  readonly lastWriteMs: number;
  ping(): void;
}

export class KeepAlive implements Disposable {
  /** The clock that streams stamp their writes with: exact to a sweep, and free to read. */
  nowMs: number;
  readonly #streams = new Set<SilentStream>();
  readonly #silenceMs: number;
  readonly #clock: () => number;
  readonly #timer: NodeJS.Timeout;

  constructor({
    silenceMs = 1000,
    clock = () => performance.now(),
  }: { silenceMs?: number; clock?: () => number } = {}) {
    this.#silenceMs = silenceMs;
    this.#clock = clock;
    this.nowMs = clock();
    this.#timer = setInterval(() => this.sweep(), Math.max(1, silenceMs / 4)).unref();
  }

  add(stream: SilentStream): void {
    this.#streams.add(stream);
  }

  remove(stream: SilentStream): void {
    this.#streams.delete(stream);
  }

  get size(): number {
    return this.#streams.size;
  }

  sweep(): void {
    this.nowMs = this.#clock();
    for (const stream of this.#streams) if (this.nowMs - stream.lastWriteMs >= this.#silenceMs) stream.ping();
  }

  [Symbol.dispose](): void {
    clearInterval(this.#timer);
  }
}
