/** What the supervisor and its two children say to each other over Node's own channel. */
import type { EngineStatus } from "../../engine/batching/engine-port.ts";
import { FreeholdError } from "../../errors.ts";
import type { ServeConfig } from "../serve-config.ts";

export type ToChild =
  /** A bound socket goes along: all of them come before the start. */
  | { readonly type: "socket"; readonly use: "clients" | "admin" }
  | { readonly type: "start"; readonly config: ServeConfig; readonly enginePath: string; readonly version: string }
  | { readonly type: "reload"; readonly config: ServeConfig }
  /** Gateway: finish what runs, within the limit, and exit. Engine: keep what was computed, and exit. */
  | { readonly type: "stop"; readonly limitMs: number };

export type FromChild =
  | { readonly type: "ready"; readonly url?: string; readonly adminUrl?: string }
  /** Gateway: the engine has told it of its model, so that requests are answered from now on. */
  | { readonly type: "attached" }
  | { readonly type: "heartbeat"; readonly status?: EngineStatus }
  | { readonly type: "failed"; readonly error: SentError }
  | { readonly type: "warning"; readonly message: string };

/** An error as plain data: the supervisor throws it again. */
export interface SentError {
  readonly message: string;
  readonly code: string;
  readonly where: string | undefined;
  readonly hint: string | undefined;
}

export function sentError(error: unknown): SentError {
  if (error instanceof FreeholdError) {
    const { message, code, where, hint } = error;
    return { message, code, where, hint };
  }
  const message = error instanceof Error ? error.message : String(error);
  return { message, code: "internal", where: undefined, hint: undefined };
}

export function receivedError({ message, code, where, hint }: SentError): FreeholdError {
  return new FreeholdError(message, {
    code,
    ...(where === undefined ? {} : { where }),
    ...(hint === undefined ? {} : { hint }),
  });
}

export const heartbeatMs = 500;

/** Signals go to every process of a terminal; only the supervisor obeys them, its children wait for its word. */
export function leaveSignalsToSupervisor(): void {
  for (const signal of ["SIGINT", "SIGTERM", "SIGHUP"] as const) process.on(signal, () => undefined);
}

export function tellSupervisor(message: FromChild): void {
  if (process.connected) process.send!(message);
}
