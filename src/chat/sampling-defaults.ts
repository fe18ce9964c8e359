/** How DeepSeek's API resolves sampling options that depend on thinking and tools. */
import type { DialectName } from "./dialect.ts";

export interface ResolvedSampling {
  readonly temperature: number;
  readonly topP: number;
  readonly maxTokens: number;
}

export interface SamplingRequest {
  readonly thinking: boolean;
  readonly hasTools: boolean;
  readonly isMaxEffort: boolean;
  readonly temperature: number | undefined;
  readonly topP: number | undefined;
  readonly maxTokens: number | undefined;
}

/** Thinking fixes the temperature at 1; top-p follows the model; the default length grows with the effort. */
export function resolveSampling(request: SamplingRequest, dialect: DialectName): ResolvedSampling {
  const { thinking, hasTools, isMaxEffort } = request;
  return {
    temperature: thinking ? 1 : (request.temperature ?? 1),
    topP: resolveTopP(dialect, thinking, hasTools, request.topP),
    maxTokens: request.maxTokens ?? (thinking ? (isMaxEffort ? 131_072 : 65_536) : 8192),
  };
}

function resolveTopP(dialect: DialectName, thinking: boolean, hasTools: boolean, asked: number | undefined): number {
  if (dialect === "v4.1") return thinking ? Math.max(0.95, asked ?? 0.95) : 1;
  if (!thinking) return asked ?? 1;
  return hasTools ? 0.95 : 1;
}
