/**
 * So many units a minute, with a minute's worth as reserve. What an answer costs is known when it ends: the bucket may go below
 * zero then, and stays shut until it is level again, so that the long-run rate is exact.
 */
export class TokenBucket {
  readonly #perMinute: number;
  readonly #now: () => number;
  #level: number;
  #atSeconds: number;

  /** `now` in seconds, of any origin. */
  constructor(perMinute: number, now: () => number) {
    this.#perMinute = perMinute;
    this.#now = now;
    this.#level = perMinute;
    this.#atSeconds = now();
  }

  /** Seconds until something may be taken; 0: now. */
  waitSeconds(): number {
    this.#refill();
    const missing = Math.min(1, this.#perMinute) - this.#level;
    return missing <= 0 ? 0 : (missing * 60) / this.#perMinute;
  }

  take(units: number): void {
    this.#refill();
    this.#level -= units;
  }

  #refill(): void {
    const now = this.#now();
    const gained = (Math.max(0, now - this.#atSeconds) * this.#perMinute) / 60;
    this.#level = Math.min(this.#perMinute, this.#level + gained);
    this.#atSeconds = now;
  }
}
