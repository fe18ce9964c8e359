/** What is told of an error, and whether anything can still be computed after it. */
import { DeviceError, FreeholdError } from "../../errors.ts";
import type { EngineFailure } from "./engine-port.ts";

/** The process that computes is gone, or the weights are. */
export function isFatal(error: unknown): boolean {
  return error instanceof DeviceError && (error.code === "device-process" || error.code === "file-changed");
}

export function failureOf(error: unknown): EngineFailure {
  if (!(error instanceof FreeholdError)) {
    const message = error instanceof Error ? error.message : String(error);
    return { code: "engine_error", message: `The engine failed: ${message}`, isRetryable: false };
  }
  const { code, message, hint } = error;
  const isRetryable = code === "overloaded" || code === "draining" || code === "dead" || code === "image-lost";
  return { code, message, isRetryable, ...(hint === undefined ? {} : { hint }) };
}
