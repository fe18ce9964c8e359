/**
 * Answers by the Idempotency-Key that their clients gave, each client's apart. A request with a known key is not computed again: it
 * reads what the first one gets, also while that still runs. Time and memory are bounded; what is forgotten is computed anew.
 */
import type { IncomingHttpHeaders } from "node:http";
import { HttpError } from "../http-error.ts";
import type { Deadlines } from "../limits/call-engine.ts";
import { KeptAnswer } from "./kept-answer.ts";

export interface KeepLimits {
  /** How long an answer is kept once it is whole. */
  readonly retentionMs: number;
  /** How long an answer whose client is gone is still computed. */
  readonly absenceMs: number;
  /** Of one answer: a longer one is given, but not kept. */
  readonly answerBytes: number;
  /** Of all answers: the oldest make room. */
  readonly totalBytes: number;
}

export const defaultKeepLimits: KeepLimits = {
  retentionMs: 600_000,
  absenceMs: 60_000,
  answerBytes: 8 * 2 ** 20,
  totalBytes: 64 * 2 ** 20,
};

/** Longer keys name nothing better. */
const longestKey = 255;

export interface Asked {
  /** Name of the API key: clients do not see each other's answers. */
  readonly owner: string;
  readonly key: string;
  readonly path: string;
  /** Of the body. */
  readonly digest: string;
  /** It takes the place of an earlier one of this name, whatever that asked: the next turn of a conversation. */
  readonly isNextTurn?: boolean;
}

/** Whether a request has one of these headers by which its answer is kept. */
export function mayBeKept(headers: IncomingHttpHeaders): boolean {
  return headers["idempotency-key"] !== undefined || headers["x-conversation-id"] !== undefined;
}

/** The key of a request that may be sent again. Throws an HttpError (400). */
export function requestKey(key: string): string {
  checkKey(key, "Idempotency-Key");
  return `request ${key}`;
}

/** The key of a conversation's last answer. Throws an HttpError (400). */
export function conversationKey(id: string): string {
  checkKey(id, "X-Conversation-Id");
  return `conversation ${id}`;
}

interface Entry {
  readonly answer: KeptAnswer;
  abort: () => void;
  stopTimer: () => void;
}

export class KeptAnswers {
  readonly #limits: KeepLimits;
  readonly #deadlines: Deadlines;
  /** The oldest first. */
  readonly #entries = new Map<string, Entry>();
  #bytes = 0;

  constructor(limits: Partial<KeepLimits>, deadlines: Deadlines) {
    this.#limits = { ...defaultKeepLimits, ...limits };
    this.#deadlines = deadlines;
  }

  get bytes(): number {
    return this.#bytes;
  }

  /**
   * The answer to this request, if there is one; the next turn of a conversation ends the answer to the one before. Throws an HttpError
   * (422) for a key that was used for another request.
   */
  find(asked: Asked): KeptAnswer | undefined {
    const known = this.named(asked.owner, asked.key);
    if (asked.isNextTurn) {
      if (known !== undefined) this.stop(known);
      return undefined;
    }
    if (known === undefined || known.fingerprint === fingerprintOf(asked)) return known;
    throw new HttpError(422, "This Idempotency-Key was used for another request", {
      code: "idempotency-key-reused",
      where: "Idempotency-Key",
      hint: "Use a new key for each request, and the same one only to send it again",
    });
  }

  named(owner: string, key: string): KeptAnswer | undefined {
    return this.#entries.get(nameOf({ owner, key }))?.answer;
  }

  /** Nobody wants it any more. */
  stop(answer: KeptAnswer): void {
    const entry = this.#entries.get(answer.name);
    if (entry?.answer !== answer) return;
    this.#forget(answer);
    if (!answer.isDone) entry.abort();
  }

  /** Keeps an answer that is about to be computed; `abort` ends that when nobody waits for it any more. */
  keep(asked: Asked, abort: () => void): KeptAnswer {
    const name = nameOf(asked);
    const answer = new KeptAnswer(name, fingerprintOf(asked), {
      grown: (bytes) => this.#grown(answer, bytes),
      clientsChanged: (count) => this.#clientsChanged(answer, count),
      ended: (hasFailed) => this.#ended(answer, hasFailed),
    });
    this.#entries.set(name, { answer, abort, stopTimer: () => undefined });
    this.#bytes += answer.bytes;
    this.#makeRoom(answer);
    return answer;
  }

  #grown(answer: KeptAnswer, bytes: number): void {
    if (!this.#has(answer)) return;
    this.#bytes += bytes;
    if (answer.bytes > this.#limits.answerBytes) this.#lose(answer);
    else this.#makeRoom();
  }

  #clientsChanged(answer: KeptAnswer, count: number): void {
    const entry = this.#entries.get(answer.name);
    if (entry?.answer !== answer || answer.isDone) return;
    entry.stopTimer();
    entry.stopTimer = () => undefined;
    if (count > 0) return;
    entry.stopTimer = this.#deadlines.after(this.#limits.absenceMs, () => this.stop(answer));
  }

  /** A failure is not kept: who tries again wants another try. */
  #ended(answer: KeptAnswer, hasFailed: boolean): void {
    const entry = this.#entries.get(answer.name);
    if (entry?.answer !== answer) return;
    entry.stopTimer();
    if (hasFailed) this.#forget(answer);
    else entry.stopTimer = this.#deadlines.after(this.#limits.retentionMs, () => this.#forget(answer));
  }

  /** Whole answers go first, the oldest of them before others; then those that still run. One that is about to begin is spared. */
  #makeRoom(spared?: KeptAnswer): void {
    while (this.#bytes > this.#limits.totalBytes) {
      const all = [...this.#entries.values()].map(({ answer }) => answer).filter((answer) => answer !== spared);
      const victim = all.find(({ isDone }) => isDone) ?? all[0];
      if (victim === undefined) return;
      this.#lose(victim);
    }
  }

  #lose(answer: KeptAnswer): void {
    const { abort } = this.#entries.get(answer.name)!;
    this.#forget(answer);
    answer.lose();
    // Nobody can come back to it.
    if (answer.clients === 0 && !answer.isDone) abort();
  }

  #forget(answer: KeptAnswer): void {
    const entry = this.#entries.get(answer.name);
    if (entry?.answer !== answer) return;
    entry.stopTimer();
    this.#entries.delete(answer.name);
    this.#bytes -= answer.bytes;
  }

  #has(answer: KeptAnswer): boolean {
    return this.#entries.get(answer.name)?.answer === answer;
  }
}

function checkKey(key: string, name: string): void {
  if (key.length > 0 && key.length <= longestKey) return;
  throw new HttpError(400, `${name} has 1 to ${longestKey} characters`, {
    code: name.toLowerCase(),
    where: name,
    hint: "A UUID is a good one",
  });
}

function nameOf({ owner, key }: Pick<Asked, "owner" | "key">): string {
  return `${owner.length}:${owner}${key}`;
}

function fingerprintOf({ path, digest }: Asked): string {
  return `${path} ${digest}`;
}
