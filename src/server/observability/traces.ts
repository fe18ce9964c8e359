/**
 * Spans to an OpenTelemetry collector: OTLP over HTTP in its JSON form, one span a request, W3C traceparent taken up. Only with
 * --otlp: it is the one connection that the server opens. The official exporter brings eleven packages for what is one POST here.
 */
import { randomBytes } from "node:crypto";

export interface Span {
  readonly name: string;
  readonly traceparent: string | undefined;
  readonly startMs: number;
  readonly endMs: number;
  readonly isError: boolean;
  readonly attributes: Readonly<Record<string, string | number | undefined>>;
}

const maxHeld = 2048;

export class Tracer implements Disposable {
  readonly #url: string;
  readonly #version: string;
  readonly #timer: NodeJS.Timeout;
  readonly #onFailure: (message: string) => void;
  #spans: object[] = [];
  #hasFailed = false;

  constructor(url: string, version: string, onFailure: (message: string) => void, intervalMs = 5_000) {
    this.#url = url.endsWith("/v1/traces") ? url : `${url.replace(/\/$/, "")}/v1/traces`;
    this.#version = version;
    this.#onFailure = onFailure;
    this.#timer = setInterval(() => void this.flush(), intervalMs).unref();
  }

  /** Beyond the bound spans are dropped: a collector that is down costs no memory. */
  record(span: Span): void {
    if (this.#spans.length < maxHeld) this.#spans.push(otlpSpan(span));
  }

  async flush(): Promise<void> {
    if (this.#spans.length === 0) return;
    const body = JSON.stringify(this.#document(this.#spans));
    this.#spans = [];
    try {
      const headers = { "content-type": "application/json" };
      const answer = await fetch(this.#url, { method: "POST", headers, body, signal: AbortSignal.timeout(5_000) });
      if (!answer.ok) throw new Error(`status ${answer.status}`);
      this.#hasFailed = false;
    } catch (error) {
      if (!this.#hasFailed) this.#onFailure(`Traces are lost: ${(error as Error).message} (${this.#url})`);
      this.#hasFailed = true;
    }
  }

  [Symbol.dispose](): void {
    clearInterval(this.#timer);
  }

  #document(spans: readonly object[]) {
    const scope = { name: "freehold", version: this.#version };
    const resource = { attributes: attributesOf({ "service.name": "freehold", "service.version": this.#version }) };
    return { resourceSpans: [{ resource, scopeSpans: [{ scope, spans }] }] };
  }
}

function otlpSpan({ name, traceparent, startMs, endMs, isError, attributes }: Span): object {
  const parent = parseTraceparent(traceparent);
  return {
    traceId: parent?.traceId ?? randomBytes(16).toString("hex"),
    spanId: randomBytes(8).toString("hex"),
    ...(parent === undefined ? {} : { parentSpanId: parent.spanId }),
    name,
    kind: 2, // SERVER
    startTimeUnixNano: nanoseconds(startMs),
    endTimeUnixNano: nanoseconds(endMs),
    attributes: attributesOf(attributes),
    status: { code: isError ? 2 : 1 },
  };
}

/** W3C Trace Context, version 00; anything else is no parent. */
export function parseTraceparent(header: string | undefined): { traceId: string; spanId: string } | undefined {
  const [, traceId, spanId] = /^[0-9a-f]{2}-([0-9a-f]{32})-([0-9a-f]{16})-[0-9a-f]{2}$/.exec(header ?? "") ?? [];
  if (traceId === undefined || spanId === undefined || /^0+$/.test(traceId) || /^0+$/.test(spanId)) return undefined;
  return { traceId, spanId };
}

function nanoseconds(milliseconds: number): string {
  return String(BigInt(Math.round(milliseconds * 1000)) * 1000n);
}

function attributesOf(values: Span["attributes"]): object[] {
  return Object.entries(values)
    .filter(([, value]) => value !== undefined)
    .map(([key, value]) => ({
      key,
      value: typeof value === "number" ? { intValue: String(Math.round(value)) } : { stringValue: value },
    }));
}
