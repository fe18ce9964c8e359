/**
 * The queue has room for so many requests and so many tokens, in all and for each key. Beyond it a request is refused at once with
 * 429 and the time after which there will be room: a queue that grows without bound makes every answer late and none early.
 * A ticket waits from `admit` until the engine starts its request, and is gone when the answer is finished.
 */
import { HttpError } from "../http-error.ts";
import type { Identity } from "../keys.ts";
import { DrainRate } from "./drain-rate.ts";
import { TokenBucket } from "./token-bucket.ts";

export interface QueueLimits {
  readonly maxQueuedRequests: number;
  readonly maxQueuedTokens: number;
  /** Of one key, unless its own limits say otherwise. */
  readonly maxQueuedRequestsPerKey: number;
  readonly maxQueuedTokensPerKey: number;
}

export const defaultQueueLimits: QueueLimits = {
  maxQueuedRequests: 256,
  maxQueuedTokens: 8_000_000,
  maxQueuedRequestsPerKey: 256,
  maxQueuedTokensPerKey: 8_000_000,
};

export type RefusalReason =
  | "queue-requests"
  | "queue-tokens"
  | "key-requests"
  | "key-tokens"
  | "requests-per-minute"
  | "tokens-per-minute";

interface Occupancy {
  requests: number;
  tokens: number;
}

interface KeyState {
  readonly waiting: Occupancy;
  readonly requests: TokenBucket | undefined;
  readonly tokens: TokenBucket | undefined;
  /** By what the buckets were made: other limits after a reload make new ones. */
  readonly limits: Identity["limits"];
}

export class Admission {
  readonly #waiting: Occupancy = { requests: 0, tokens: 0 };
  readonly #keys = new Map<string, KeyState>();
  readonly #drain: DrainRate;
  readonly #now: () => number;
  readonly #onRefusal: (reason: RefusalReason) => void;
  #limits: QueueLimits;

  /** `now` in seconds. */
  constructor(limits: QueueLimits, now: () => number, onRefusal: (reason: RefusalReason) => void = () => undefined) {
    this.#limits = limits;
    this.#now = now;
    this.#drain = new DrainRate(now);
    this.#onRefusal = onRefusal;
  }

  set limits(limits: QueueLimits) {
    this.#limits = limits;
  }

  get waiting(): Readonly<Occupancy> {
    return this.#waiting;
  }

  /** Throws an HttpError (429) that says when there will be room. */
  admit(identity: Identity, promptTokens: number): Ticket {
    const key = this.#stateOf(identity);
    this.#checkRates(key);
    this.#checkQueue(key, identity, promptTokens);
    key.requests?.take(1);
    key.tokens?.take(promptTokens);
    const places = [this.#waiting, key.waiting];
    return new Ticket(places, promptTokens, { onStarted: () => this.#drain.count(), budget: key.tokens });
  }

  #checkRates({ requests, tokens }: KeyState): void {
    const requestWait = requests?.waitSeconds() ?? 0;
    if (requestWait > 0) throw this.#refuse("requests-per-minute", "The key has made too many requests", requestWait);
    const tokenWait = tokens?.waitSeconds() ?? 0;
    if (tokenWait > 0) throw this.#refuse("tokens-per-minute", "The key has used its tokens of this minute", tokenWait);
  }

  #checkQueue(key: KeyState, { limits }: Identity, tokens: number): void {
    const { maxQueuedRequests, maxQueuedTokens, maxQueuedRequestsPerKey, maxQueuedTokensPerKey } = this.#limits;
    this.#checkRoom(key.waiting, tokens, limits.maxQueuedRequests ?? maxQueuedRequestsPerKey, "key-requests");
    this.#checkTokens(key.waiting, tokens, limits.maxQueuedTokens ?? maxQueuedTokensPerKey, "key-tokens");
    this.#checkRoom(this.#waiting, tokens, maxQueuedRequests, "queue-requests");
    this.#checkTokens(this.#waiting, tokens, maxQueuedTokens, "queue-tokens");
  }

  #checkRoom({ requests }: Occupancy, _tokens: number, most: number, reason: RefusalReason): void {
    if (requests < most) return;
    throw this.#refuse(reason, `The queue is full: ${requests} requests wait`, this.#drain.secondsFor(requests / 2));
  }

  /** A request that alone is longer than the bound may wait when nothing else does. */
  #checkTokens({ requests, tokens: waiting }: Occupancy, tokens: number, most: number, reason: RefusalReason): void {
    if (waiting === 0 || waiting + tokens <= most) return;
    throw this.#refuse(reason, `The queue is full: ${waiting} tokens wait`, this.#drain.secondsFor(requests / 2));
  }

  #refuse(reason: RefusalReason, message: string, retryAfterSeconds: number): HttpError {
    this.#onRefusal(reason);
    const seconds = Math.ceil(retryAfterSeconds);
    return new HttpError(429, message, { code: reason, retryAfterSeconds: seconds, hint: `Try again in ${seconds} s` });
  }

  #stateOf({ name, limits }: Identity): KeyState {
    const known = this.#keys.get(name);
    if (known !== undefined && JSON.stringify(known.limits) === JSON.stringify(limits)) return known;
    const bucket = (perMinute: number | undefined) =>
      perMinute === undefined ? undefined : new TokenBucket(perMinute, this.#now);
    const state = {
      waiting: known?.waiting ?? { requests: 0, tokens: 0 },
      requests: bucket(limits.requestsPerMinute),
      tokens: bucket(limits.tokensPerMinute),
      limits,
    };
    this.#keys.set(name, state);
    return state;
  }
}

/** A place in the queue. */
export class Ticket {
  readonly #places: readonly Occupancy[];
  readonly #tokens: number;
  readonly #onStarted: () => void;
  readonly #budget: TokenBucket | undefined;
  #isWaiting = true;

  constructor(
    places: readonly Occupancy[],
    tokens: number,
    { onStarted, budget }: { onStarted: () => void; budget: TokenBucket | undefined },
  ) {
    this.#places = places;
    this.#tokens = tokens;
    this.#onStarted = onStarted;
    this.#budget = budget;
    this.#occupy(1);
  }

  /** The engine has begun: the place is free. */
  started(): void {
    if (this.#leave()) this.#onStarted();
  }

  /** The answer is finished, with so many tokens: they are charged now. */
  finished(generatedTokens: number): void {
    this.#leave();
    if (generatedTokens > 0) this.#budget?.take(generatedTokens);
  }

  #leave(): boolean {
    if (!this.#isWaiting) return false;
    this.#isWaiting = false;
    this.#occupy(-1);
    return true;
  }

  #occupy(sign: 1 | -1): void {
    for (const place of this.#places) {
      place.requests += sign;
      place.tokens += sign * this.#tokens;
    }
  }
}
