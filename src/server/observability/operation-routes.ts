/** Routes for those who run the server: probes, metrics, the status page. Probes read what is known and never ask the engine. */
import { HttpError } from "../http-error.ts";
import type { Call, Route, Services } from "../route.ts";
import type { Readiness } from "./engine-progress.ts";
import type { Metrics } from "./metrics.ts";
import { statusPage, statusPagePolicy } from "./status-page.ts";

export interface OperationParts {
  readiness(): Readiness;
  readonly metrics: Metrics;
  streams(): number;
  engineRestarts(): number;
}

export function operationRoutes(parts: OperationParts): readonly Route[] {
  const open = { method: "GET", scope: "none", errors: "plain" } as const;
  const admin = { method: "GET", scope: "admin:read", errors: "plain" } as const;
  return [
    // The event loop turns, or this would not be answered.
    { ...open, path: "/livez", handle: async (call) => call.text(200, "ok\n", "text/plain") },
    { ...open, path: "/readyz", handle: async (call) => answerProbe(call, parts.readiness()) },
    { ...open, path: "/startupz", handle: async (call, services) => answerStartup(call, services) },
    { ...open, path: "/health", handle: async (call, services) => answerHealth(call, services, parts) },
    { ...open, path: "/v1/health", handle: async (call, services) => answerHealth(call, services, parts) },
    { ...open, path: "/", handle: async (call) => answerPage(call) },
    { ...admin, path: "/status.json", handle: async (call, services) => answerStatus(call, services, parts) },
    {
      ...admin,
      path: "/metrics",
      handle: async (call) =>
        call.text(200, await parts.metrics.text(), parts.metrics.contentType, {
          // As llama-server tells it: a counter that fell was started anew.
          "Process-Start-Time-Unix": String(Math.floor(performance.timeOrigin / 1000)),
        }),
    },
  ];
}

function answerProbe(call: Call, readiness: Readiness): void {
  if (readiness.isReady) call.text(200, "ok\n", "text/plain");
  else call.text(503, `${readiness.why}\n`, "text/plain");
}

function answerStartup(call: Call, { engine }: Services): void {
  if (engine.info !== undefined) call.text(200, "ok\n", "text/plain");
  else call.text(503, `loading: ${Math.floor(100 * engine.status.loaded)} %\n`, "text/plain");
}

/** `state` beside llama-server's "ok": a server whose model sleeps is well. */
function answerHealth(call: Call, { engine }: Services, parts: OperationParts): void {
  const readiness = parts.readiness();
  if (!readiness.isReady) throw new HttpError(503, readiness.why, { code: "not-ready", retryAfterSeconds: 2 });
  call.json(200, { status: "ok", state: engine.status.state });
}

function answerPage(call: Call): void {
  call.text(200, statusPage, "text/html; charset=utf-8", { "content-security-policy": statusPagePolicy });
}

function answerStatus(call: Call, { engine, version, now }: Services, parts: OperationParts): void {
  const readiness = parts.readiness();
  const { state, loaded, running, waiting, steps, counters } = engine.status;
  const { name, device, kernels, threads, parameters, contextLength } = engine.info ?? {};
  call.json(200, {
    time: now(),
    version,
    ready: readiness.isReady,
    why: readiness.isReady ? null : readiness.why,
    model: name ?? null,
    device: device ?? null,
    kernels: kernels ?? null,
    threads: threads ?? null,
    parameters: parameters ?? null,
    context_length: contextLength ?? null,
    state,
    loaded,
    running,
    waiting,
    steps,
    streams: parts.streams(),
    engineRestarts: parts.engineRestarts(),
    counters,
  });
}
