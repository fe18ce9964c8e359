/** What gateway and engine say to each other, and what the supervisor says to both. */
import {
  type EngineEvent,
  type EngineFailure,
  type EngineInfo,
  type EnginePort,
  type EngineRequest,
  type EngineStatus,
  noCache,
  noRequests,
} from "../../engine/batching/engine-port.ts";

export type ToEngine =
  | { readonly type: "submit"; readonly request: EngineRequest }
  | { readonly type: "cancel"; readonly id: string; readonly keptTokens?: number }
  | { readonly type: "wake" }
  /** A piece of an image's source; the last is answered with "image". One image at a time. */
  | { readonly type: "image"; readonly id: number; readonly piece: string; readonly isLast: boolean };

export type FromEngine =
  /** Sent once the model is loaded, or at once to a gateway that comes later. */
  | { readonly type: "info"; readonly info: EngineInfo }
  | { readonly type: "status"; readonly status: EngineStatus }
  | { readonly type: "event"; readonly id: string; readonly event: EngineEvent }
  | { readonly type: "image"; readonly id: number; readonly result: PreparedImage };

/** The tokens of an image, or why it cannot be read. */
export type PreparedImage = { readonly tokenIds: readonly number[] } | { readonly failure: EngineFailure };

/** Infinite log probabilities are not in JSON. */
export function isPlain(message: FromEngine): boolean {
  if (message.type !== "event") return true;
  const { event } = message;
  return event.type !== "promptLogprobs" && !(event.type === "tokens" && event.logprobs !== undefined);
}

/** An engine that somebody hosts: a batch engine over a model, or a scripted one in tests. */
export interface HostedEngine extends EnginePort {
  /** What was computed is kept where it should be; nothing runs afterwards. */
  close(): Promise<void>;
}

/** What the module of an engine exports as `startEngine`. */
export type StartEngine = (options: unknown, onProgress: (loaded: number) => void) => Promise<HostedEngine>;

/** Of an engine of which nothing is known yet. */
export function emptyStatus(state: EngineStatus["state"], loaded = 0): EngineStatus {
  const counters = {
    ...noRequests,
    preemptions: 0,
    stepSeconds: 0,
    cache: noCache,
  };
  const heartbeatMs = performance.timeOrigin + performance.now();
  return { state, loaded, steps: 0, heartbeatMs, running: 0, waiting: 0, counters };
}
