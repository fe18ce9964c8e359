/**
 * Whose turn it is: deficit round robin over keys (Shreedhar & Varghese 1995), newcomers first (as FQ-CoDel, RFC 8290, does with
 * new flows). Keys stand in a ring; at each of its turns a key may spend a quantum of tokens, and what it spends beyond is owed at
 * its next turns. Costs are charged when they are known, after the choice: so a key may go while it owes nothing, and the difference
 * between two busy keys stays below a quantum and the cost of one choice.
 */
export class FairQueue {
  readonly #quantum: number;
  readonly #firstQuantum: number;
  /** In the order of the ring; what a key may still spend (negative: owes). */
  readonly #credit = new Map<string, number>();
  /** Keys in their first quantum. */
  readonly #newcomers = new Set<string>();
  /** Charged one after another, with no old key in between. */
  #newcomersInARow = 0;
  #turn: string | undefined;

  /** `firstQuantum` is what a newcomer may spend before it stands in the ring. */
  constructor(quantum: number, firstQuantum = quantum) {
    this.#quantum = quantum;
    this.#firstQuantum = firstQuantum;
  }

  /** The key that goes next among those that have something to do. Keys that are not named keep their place and get nothing. */
  pick(keys: ReadonlySet<string>): string | undefined {
    for (const key of keys) {
      if (this.#credit.has(key)) continue;
      this.#credit.set(key, this.#firstQuantum);
      this.#newcomers.add(key);
    }
    return this.#pickNewcomer(keys) ?? this.#pickInTurn(keys);
  }

  /** The key has spent so many tokens; a negative cost gives back. */
  charge(key: string, cost: number): void {
    const credit = this.#credit.get(key);
    if (credit === undefined) return;
    const isNew = this.#newcomers.has(key);
    if (cost > 0) this.#newcomersInARow = isNew ? this.#newcomersInARow + 1 : 0;
    this.#credit.set(key, Math.min(isNew ? this.#firstQuantum : this.#quantum, credit - cost));
    if (credit - cost <= 0) this.#newcomers.delete(key);
  }

  /** The key has nothing to do any more: it neither saves up credit nor keeps a debt. */
  forget(key: string): void {
    this.#credit.delete(key);
    this.#newcomers.delete(key);
    if (this.#turn === key) this.#turn = undefined;
  }

  /** However many new keys come, the old ones get a turn in between. */
  #pickNewcomer(keys: ReadonlySet<string>): string | undefined {
    const isOldTurn = this.#newcomersInARow >= mostNewcomersInARow;
    if (isOldTurn) for (const key of keys) if (!this.#newcomers.has(key)) return undefined;
    for (const key of this.#newcomers) if (keys.has(key)) return key;
    return undefined;
  }

  #pickInTurn(keys: ReadonlySet<string>): string | undefined {
    const ring = [...this.#credit.keys()];
    const place = Math.max(0, ring.indexOf(this.#turn ?? ""));
    const isOld = (key: string) => keys.has(key) && !this.#newcomers.has(key);
    const order = [...ring.slice(place), ...ring.slice(0, place)].filter(isOld);
    const [first] = order;
    if (first === undefined) return undefined;
    if (first === this.#turn) {
      if (this.#credit.get(first)! > 0) return first;
      order.push(order.shift()!);
    }
    this.#skipRounds(order);
    this.#turn = order.find((key) => this.#giveQuantum(key) > 0);
    return this.#turn;
  }

  #giveQuantum(key: string): number {
    const credit = Math.min(this.#quantum, this.#credit.get(key)! + this.#quantum);
    this.#credit.set(key, credit);
    return credit;
  }

  /** Gives at once what all would get in the rounds in which nobody is out of debt: then one key at least owes less than a quantum. */
  #skipRounds(keys: readonly string[]): void {
    const least = Math.min(...keys.map((key) => Math.max(0, -this.#credit.get(key)!)));
    const rounds = Math.floor(least / this.#quantum);
    if (rounds === 0) return;
    for (const key of keys) this.#credit.set(key, this.#credit.get(key)! + rounds * this.#quantum);
  }
}

const mostNewcomersInARow = 8;
