/** What is written down of each request once it is over: a line of the log, numbers, and for keys in use the audit and a trace. */
import type { EnginePort } from "../../engine/batching/engine-port.ts";
import type { Exchange } from "../http/exchange.ts";
import { accessLine, type WriteLine } from "./access-log.ts";
import type { AuditLog } from "./audit-log.ts";
import type { Metrics } from "./metrics.ts";
import type { Tracer } from "./traces.ts";

export interface ExchangeLogParts {
  readonly engine: EnginePort;
  readonly metrics: Metrics;
  readonly log?: WriteLine | undefined;
  readonly audit?: AuditLog | undefined;
  readonly tracer?: Tracer | undefined;
  /** Milliseconds since 1970, and of the clock that exchanges are timed with. */
  readonly clock: () => number;
  readonly nowMs: () => number;
}

export class ExchangeLog {
  readonly #parts: ExchangeLogParts;

  constructor(parts: ExchangeLogParts) {
    this.#parts = parts;
  }

  note(exchange: Exchange): void {
    const { request, response, call, match, identity, requestId, path } = exchange;
    const endMs = this.#parts.clock();
    const ms = this.#parts.nowMs() - exchange.startedMs;
    if (call?.wasCut) this.#parts.metrics.cut();
    const fault = exchange.fault ?? (call?.wasCut ? "cut" : response.writableFinished ? undefined : "closed");
    const status = response.statusCode;
    this.#parts.metrics.answered(match?.route.path ?? "none", status);
    const entry = {
      requestId,
      method: request.method ?? "",
      route: match?.route.path ?? path.slice(0, 200),
      status,
      key: identity?.name ?? "none",
      ms,
      ...(call?.usage === undefined ? {} : { tokens: call.usage }),
      ...(fault === undefined ? {} : { fault }),
    };
    this.#parts.log?.(accessLine(entry, new Date(endMs)));
    if (match !== undefined && match.route.scope !== "none") this.#record(exchange, endMs - ms, endMs);
  }

  /** Keys in use and what they asked, for the audit and for traces. */
  #record({ request, response, call, match, identity, requestId }: Exchange, startMs: number, endMs: number): void {
    const what = `${request.method} ${match!.route.path}`;
    const model = this.#parts.engine.info?.name;
    const tokens = call?.usage && call.usage.prompt + call.usage.generated;
    const isRefused = identity === undefined;
    this.#parts.audit?.append(
      {
        who: isRefused ? "refused" : identity.name,
        what,
        requestId,
        ...(model && { model }),
        ...(tokens && { tokens }),
      },
      new Date(endMs),
    );
    this.#parts.tracer?.record({
      name: what,
      traceparent: headerText(request.headers.traceparent),
      startMs,
      endMs,
      isError: response.statusCode >= 500,
      attributes: {
        "http.request.method": request.method,
        "http.route": match!.route.path,
        "http.response.status_code": response.statusCode,
        "gen_ai.system": "freehold",
        "gen_ai.request.model": model,
        "gen_ai.usage.input_tokens": call?.usage?.prompt,
        "gen_ai.usage.output_tokens": call?.usage?.generated,
        "freehold.request_id": requestId,
      },
    });
  }
}

function headerText(value: string | string[] | undefined): string | undefined {
  return typeof value === "string" ? value : undefined;
}
