/**
 * Drafts by looking back (prompt lookup): where the last tokens stood before, what followed there is likely to follow again: code
 * that is edited, documents that are quoted, JSON that repeats its keys. Chains of equal pairs of tokens, as in LZ77: the newest
 * places first, and of those the one whose past agrees longest.
 */

/** Places that are compared for one draft. */
const mostPlaces = 16;
/** Tokens before a place that are compared; more agreement does not make it more likely. */
const mostAgreement = 16;
/** Tokens that are looked back at, so that a long context costs bounded memory. */
const mostIndexed = 131_072;
/** Tokens that are indexed in one go: a long prompt is taken in over some steps. */
const indexedAtOnce = 16_384;
/** Vocabularies are smaller: a pair is one exact number. Ids beyond are parts of images, which are no text that repeats. */
const vocabularyBound = 2 ** 26;

export class NgramDraft {
  readonly #tokenIds: readonly number[];
  readonly #leastAgreement: number;
  /** The newest place of each pair: index of its second token. */
  readonly #newest = new Map<number, number>();
  /** The place before with the same pair, from #start on; -1 if there is none. */
  readonly #before: number[] = [];
  readonly #start: number;
  #indexed: number;

  /** `tokenIds` grows behind this object's back; a place counts if at least `leastAgreement` tokens agree. */
  constructor(tokenIds: readonly number[], leastAgreement = 3) {
    this.#tokenIds = tokenIds;
    this.#leastAgreement = Math.max(2, leastAgreement);
    this.#start = Math.max(0, tokenIds.length - mostIndexed);
    this.#indexed = this.#start;
  }

  /** Up to `count` tokens that may follow; none where the past says nothing. */
  propose(count: number): number[] {
    this.#index();
    const place = count > 0 ? this.#bestPlace() : undefined;
    if (place === undefined) return [];
    const draft: number[] = [];
    const length = this.#tokenIds.length;
    // Beyond the end the draft goes on with itself: a text with a short period repeats.
    for (let i = place + 1; draft.length < count; i++) {
      const next = i < length ? this.#tokenIds[i]! : draft[i - length]!;
      if (next >= vocabularyBound) break;
      draft.push(next);
    }
    return draft;
  }

  #bestPlace(): number | undefined {
    const last = this.#tokenIds.length - 1;
    if (this.#indexed <= last) return undefined;
    let best: number | undefined;
    let most = this.#leastAgreement - 1;
    let place = this.#before[last - this.#start] ?? -1;
    for (let seen = 0; place >= 0 && seen < mostPlaces; seen++) {
      const agreement = this.#agreement(place, last);
      if (agreement > most) {
        most = agreement;
        best = place;
        if (most === mostAgreement) break;
      }
      place = this.#before[place - this.#start]!;
    }
    return best;
  }

  #agreement(place: number, last: number): number {
    let agreement = 0;
    while (agreement < mostAgreement && agreement <= place) {
      if (this.#tokenIds[place - agreement] !== this.#tokenIds[last - agreement]) break;
      agreement++;
    }
    return agreement;
  }

  #index(): void {
    const end = Math.min(this.#tokenIds.length, this.#indexed + indexedAtOnce);
    for (let i = this.#indexed; i < end; i++) {
      const [first, second] = [i > this.#start ? this.#tokenIds[i - 1]! : vocabularyBound, this.#tokenIds[i]!];
      const isPair = first < vocabularyBound && second < vocabularyBound;
      const pair = isPair ? first * vocabularyBound + second : -1;
      this.#before.push(pair < 0 ? -1 : (this.#newest.get(pair) ?? -1));
      if (pair >= 0) this.#newest.set(pair, i);
    }
    this.#indexed = end;
  }
}
