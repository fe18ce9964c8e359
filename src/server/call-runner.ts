/**
 * Runs the route of a request that has passed the gates: with its place in the queue, its time limits and its numbers, and, where
 * its client gave an Idempotency-Key, with an answer that is kept. What runs can be waited for and ended.
 */
import type { DialectName } from "../chat/dialect.ts";
import type { EngineInfo, EnginePort } from "../engine/batching/engine-port.ts";
import type { Tokenizer } from "../tokenizer/tokenizer.ts";
import { AnswerFollower, lastEventId } from "./answers/answer-follower.ts";
import { type Asked, conversationKey, type KeptAnswers, requestKey } from "./answers/kept-answers.ts";
import type { Exchange } from "./http/exchange.ts";
import { HttpCall } from "./http/http-call.ts";
import type { KeepAlive } from "./http/keep-alive.ts";
import type { RequestContent } from "./http/read-body.ts";
import type { StreamLimits } from "./http/server-sent-events.ts";
import { HttpError } from "./http-error.ts";
import type { Admission, Ticket } from "./limits/admission.ts";
import { CallEngine, type Deadlines, type TimeLimits } from "./limits/call-engine.ts";
import type { Metrics } from "./observability/metrics.ts";
import type { Services } from "./route.ts";

export interface CallRunnerParts {
  readonly engine: EnginePort;
  readonly tokenizer: Tokenizer;
  readonly dialect: DialectName;
  readonly version: string;
  readonly keepAlive: KeepAlive;
  readonly admission: Admission;
  readonly metrics: Metrics;
  readonly kept: KeptAnswers;
  readonly streamLimits: StreamLimits;
  readonly deadlines: Deadlines;
  timeLimits(): TimeLimits;
  /** Milliseconds since 1970. */
  readonly clock: () => number;
}

export class CallRunner {
  readonly #parts: CallRunnerParts;
  readonly #running = new Set<Exchange>();
  #finished: (() => void) | undefined;

  constructor(parts: CallRunnerParts) {
    this.#parts = parts;
  }

  /** Resolves when the request is answered, or its client is gone and nobody will come back for the answer. */
  async run(exchange: Exchange, url: URL, content: RequestContent | undefined): Promise<void> {
    this.#running.add(exchange);
    try {
      const asked = askedOf(exchange, content);
      if (asked === undefined || !(await this.#follow(exchange, asked)))
        await this.#call(exchange, url, content, asked);
    } finally {
      this.#running.delete(exchange);
      if (this.#running.size === 0) this.#finished?.();
    }
  }

  /** Resolves when nothing runs. */
  idle(): Promise<void> {
    if (this.#running.size === 0) return Promise.resolve();
    return new Promise((resolve) => {
      this.#finished = resolve;
    });
  }

  /** Ends what runs with an error that clients may try again after. */
  stopAll(): void {
    for (const exchange of [...this.#running]) {
      const error = new HttpError(503, "The server stops", { code: "stopping", retryAfterSeconds: 5 });
      exchange.fail(error, exchange.match!.route.errors);
      exchange.call?.abort(error);
    }
  }

  /** Reads an answer that there is already; false when there is none yet. */
  async #follow({ request, response }: Exchange, asked: Asked): Promise<boolean> {
    const { kept, keepAlive } = this.#parts;
    const seen = request.headers["last-event-id"];
    const after = typeof seen === "string" ? lastEventId(seen) : 0;
    const answer = kept.find(asked);
    if (answer !== undefined) {
      await AnswerFollower.follow(answer, response, after, keepAlive);
      return true;
    }
    if (seen === undefined) return false;
    throw new HttpError(410, "The stream of this Idempotency-Key is not kept any more", {
      code: "stream-gone",
      where: "Last-Event-ID",
      hint: "Send the request again without Last-Event-ID: it is computed anew",
    });
  }

  async #call(
    exchange: Exchange,
    url: URL,
    content: RequestContent | undefined,
    asked: Asked | undefined,
  ): Promise<void> {
    const { request, response, match, identity, requestId } = exchange;
    const { keepAlive, streamLimits, admission } = this.#parts;
    const tickets: Ticket[] = [];
    const giveUp = () => call.abort(new HttpError(499, "The client did not come back", { code: "closed" }));
    if (asked !== undefined) exchange.kept = this.#parts.kept.keep(asked, giveUp);
    const call: HttpCall = new HttpCall({
      requestId,
      url,
      parameters: match!.parameters,
      headers: request.headers,
      body: content?.json,
      identity: identity!,
      response,
      keepAlive,
      streamLimits,
      admit: (tokens) => void tickets.push(admission.admit(identity!, tokens.prompt)),
      kept: exchange.kept,
    });
    exchange.call = call;
    const engine = this.#engineOf(call, tickets);
    call.signal.addEventListener("abort", () => engine.close(), { once: true });
    try {
      await match!.route.handle(call, this.#services(engine));
      const isAnswered = response.headersSent || call.stream !== undefined || exchange.kept?.isDone;
      if (!isAnswered && !call.signal.aborted) throw new Error(`${match!.route.path} gave no answer`);
    } finally {
      engine.close();
      tickets.forEach((ticket, i) => {
        ticket.finished(i === 0 ? (call.usage?.generated ?? engine.generatedTokens) : 0);
      });
    }
  }

  #engineOf(call: HttpCall, tickets: readonly Ticket[]): CallEngine {
    const { metrics, engine, deadlines } = this.#parts;
    return new CallEngine({
      engine,
      owner: { key: call.key, namespace: call.namespace, priority: call.priority },
      limits: this.#parts.timeLimits(),
      deadlines,
      observer: {
        started: (queueMs) => {
          for (const ticket of tickets) ticket.started();
          metrics.started(queueMs);
        },
        firstToken: (ms) => metrics.firstToken(ms),
        tokens: (count, ms) => metrics.tokens(count, ms),
        ended: (outcome, ms, usage) => metrics.ended(outcome, ms, usage),
      },
    });
  }

  #services(engine: EnginePort): Services {
    const { tokenizer, dialect, version, clock } = this.#parts;
    const requireInfo = () => requireEngineInfo(engine);
    return { engine, requireInfo, tokenizer, dialect, version, now: () => clock() / 1000 };
  }
}

/** What a request asks whose client may send it again; undefined for all others. Throws an HttpError (400). */
function askedOf({ request, match, identity }: Exchange, content: RequestContent | undefined): Asked | undefined {
  const { "idempotency-key": key, "x-conversation-id": conversation, "last-event-id": seen } = request.headers;
  const { scope, path } = match!.route;
  if (content === undefined || scope !== "infer") return undefined;
  const asked = { owner: identity!.name, path, digest: content.digest ?? "" };
  if (typeof key === "string") return { ...asked, key: requestKey(key) };
  if (typeof conversation === "string") return { ...asked, key: conversationKey(conversation), isNextTurn: true };
  if (seen === undefined) return undefined;
  throw new HttpError(400, "Last-Event-ID needs the Idempotency-Key of its stream", {
    code: "last-event-id",
    where: "Last-Event-ID",
    hint: "Only the events of requests with an Idempotency-Key have ids, and are kept",
  });
}

/** Throws an HttpError (503) while the model loads. */
function requireEngineInfo({ info, status }: EnginePort): EngineInfo {
  if (info !== undefined) return info;
  throw new HttpError(503, `The model is loading: ${Math.floor(100 * status.loaded)} %`, {
    code: "loading",
    retryAfterSeconds: 5,
  });
}
