/** How fast the queue empties: requests a second over the last minute, for an honest Retry-After. */
const windowSeconds = 60;

export class DrainRate {
  readonly #times: number[] = [];
  readonly #now: () => number;

  /** `now` in seconds. */
  constructor(now: () => number) {
    this.#now = now;
  }

  /** A request has left the queue. */
  count(): void {
    this.#times.push(this.#now());
    // Enough to know a rate, and no more to keep.
    if (this.#times.length > 1024) this.#times.shift();
  }

  /** Seconds until so many requests will have left, 1 to 120; 10 while nothing was seen. */
  secondsFor(requests: number): number {
    const now = this.#now();
    while (this.#times.length > 0 && now - this.#times[0]! > windowSeconds) this.#times.shift();
    if (this.#times.length < 2) return 10;
    const rate = this.#times.length / Math.max(0.001, now - this.#times[0]!);
    return Math.min(120, Math.max(1, Math.ceil(requests / rate)));
  }
}
