/**
 * Requests that wait: by priority class, then by key, then first come first served. Waiting raises the class: a request that has
 * waited `agingMs` stands with the next better class, so no class starves.
 */
export interface Waiting {
  readonly key: string;
  readonly priority: number;
  /** Rises with every request that was submitted. */
  readonly order: number;
  readonly submittedMs: number;
}

/** Requests of one class and key that are looked at when the first of them cannot start yet. */
const mostSkipped = 64;

export class WaitingLine<T extends Waiting> {
  readonly #agingMs: number;
  /** By class and key; each list in rising order. */
  readonly #lists = new Map<string, T[]>();
  #size = 0;

  constructor(agingMs: number) {
    this.#agingMs = agingMs;
  }

  get size(): number {
    return this.#size;
  }

  add(request: T): void {
    const name = listName(request);
    const list = this.#lists.get(name) ?? [];
    this.#lists.set(name, list);
    // One that comes back stands before those that came after it.
    let place = list.length;
    while (place > 0 && list[place - 1]!.order > request.order) place--;
    list.splice(place, 0, request);
    this.#size++;
  }

  remove(request: T): void {
    const name = listName(request);
    const list = this.#lists.get(name);
    const place = list?.indexOf(request) ?? -1;
    if (list === undefined || place < 0) return;
    list.splice(place, 1);
    this.#size--;
    if (list.length === 0) this.#lists.delete(name);
  }

  /** Of the best class that has one: the first request of each key that can start. */
  candidates(nowMs: number, canStart: (request: T) => boolean): Map<string, T> {
    let best = Number.POSITIVE_INFINITY;
    let found = new Map<string, T>();
    for (const list of this.#lists.values()) {
      if (agedClass(list[0]!, nowMs, this.#agingMs) > best) continue;
      const request = list.slice(0, mostSkipped).find(canStart);
      if (request === undefined) continue;
      const itsClass = agedClass(request, nowMs, this.#agingMs);
      if (itsClass > best) continue;
      if (itsClass < best) found = new Map();
      best = itsClass;
      const other = found.get(request.key);
      if (other === undefined || request.order < other.order) found.set(request.key, request);
    }
    return found;
  }
}

/** The class that a request has risen to. */
export function agedClass({ priority, submittedMs }: Waiting, nowMs: number, agingMs: number): number {
  return Math.max(0, priority - Math.floor(Math.max(0, nowMs - submittedMs) / agingMs));
}

function listName({ priority, key }: Waiting): string {
  return `${priority} ${key}`;
}
