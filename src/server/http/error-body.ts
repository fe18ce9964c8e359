/**
 * From anything thrown to a status and a body in the shape of the route's API. What a client's library tests is theirs: OpenAI's
 * `code`, Anthropic's `type`, and the words with which both say that a prompt is too long (clients then compact and try again).
 * What we did not throw on purpose says nothing of its inside.
 */
import { FormatError, FreeholdError, MediaError, RequestError, UsageError } from "../../errors.ts";
import { HttpError } from "../http-error.ts";
import type { ErrorDialect } from "../route.ts";

export interface ErrorAnswer {
  readonly status: number;
  readonly headers: Readonly<Record<string, string>>;
  readonly body: unknown;
  /** For logs and metrics. */
  readonly code: string;
}

export function errorAnswer(error: unknown, dialect: ErrorDialect, requestId: string): ErrorAnswer {
  const known = describe(error);
  const headers: Record<string, string> = { ...known.headers };
  if (known.retryAfterSeconds !== undefined) headers["retry-after"] = String(Math.ceil(known.retryAfterSeconds));
  return { status: known.status, headers, body: bodyOf(known, dialect, requestId), code: known.code };
}

interface Description {
  readonly status: number;
  readonly code: string;
  /** What went wrong, with the hint. */
  readonly message: string;
  readonly where: string | undefined;
  readonly retryAfterSeconds: number | undefined;
  readonly headers: Readonly<Record<string, string>>;
}

function describe(error: unknown): Description {
  if (!(error instanceof FreeholdError)) {
    return {
      status: 500,
      code: "internal",
      message: "The server failed at this request; its log says more under the request's id",
      where: undefined,
      retryAfterSeconds: undefined,
      headers: {},
    };
  }
  const { status, retryAfterSeconds, headers } =
    error instanceof HttpError ? error : { status: statusOf(error), retryAfterSeconds: undefined, headers: {} };
  const message = error.hint === undefined ? error.message : `${error.message.replace(/\.$/, "")}. ${error.hint}`;
  return { status, code: error.code, message, where: error.where, retryAfterSeconds, headers };
}

function statusOf(error: FreeholdError): number {
  const refused = [RequestError, FormatError, UsageError, MediaError];
  return refused.some((kind) => error instanceof kind) ? 400 : 500;
}

function bodyOf(description: Description, dialect: ErrorDialect, requestId: string): unknown {
  switch (dialect) {
    case "openai":
      return { error: openaiError(description) };
    case "anthropic":
      return { type: "error", error: anthropicError(description), request_id: requestId };
    case "llama":
      return { error: llamaError(description) };
    case "plain":
      return { error: { code: description.code, message: description.message } };
    default:
      return dialect satisfies never;
  }
}

function openaiError({ status, code, message, where }: Description) {
  const type = openaiTypes[status] ?? (status < 500 ? "invalid_request_error" : "server_error");
  const param = where ?? (code === tooLong ? "messages" : null);
  const lengths = code === tooLong ? tokenCounts(message) : undefined;
  const text =
    lengths === undefined
      ? message
      : `This model's maximum context length is ${lengths.maximum} tokens, but the request needs ${lengths.found} tokens. ${message}`;
  return { message: text, type, param, code: openaiCodes[status] ?? code };
}

function anthropicError({ status, code, message }: Description) {
  const type = anthropicTypes[status] ?? (status < 500 ? "invalid_request_error" : "api_error");
  const lengths = code === tooLong ? tokenCounts(message) : undefined;
  if (lengths === undefined) return { type, message };
  return { type, message: `prompt is too long: ${lengths.found} tokens > ${lengths.maximum} maximum` };
}

/** llama-server's: `code` is the status; a prompt that is too long tells both lengths in fields. */
function llamaError({ status, code, message }: Description) {
  if (code === tooLong) {
    const { found, maximum } = tokenCounts(message) ?? { found: 0, maximum: 0 };
    return { code: status, message, type: "exceed_context_size_error", n_prompt_tokens: found, n_ctx: maximum };
  }
  const type = llamaTypes[status] ?? (status < 500 ? "invalid_request_error" : "server_error");
  return { code: status, message, type };
}

const tooLong = "context_length_exceeded";

/** "The prompt has 70 tokens and needs room for 8 more, the context only 64": what is needed, and what there is. */
function tokenCounts(message: string): { found: number; maximum: number } | undefined {
  const numbers = (message.split(". ")[0]!.match(/\d+/g) ?? []).map(Number);
  if (numbers.length < 2) return undefined;
  return { found: numbers.slice(0, -1).reduce((sum, count) => sum + count, 0), maximum: numbers.at(-1)! };
}

const openaiTypes: Readonly<Record<number, string>> = {
  401: "authentication_error",
  403: "permission_error",
  429: "rate_limit_error",
};

/** Codes that OpenAI's clients know for these states. */
const openaiCodes: Readonly<Record<number, string>> = { 401: "invalid_api_key", 429: "rate_limit_exceeded" };

const llamaTypes: Readonly<Record<number, string>> = {
  401: "authentication_error",
  403: "permission_error",
  404: "not_found_error",
  501: "not_supported_error",
  503: "unavailable_error",
};

const anthropicTypes: Readonly<Record<number, string>> = {
  401: "authentication_error",
  403: "permission_error",
  404: "not_found_error",
  413: "request_too_large",
  429: "rate_limit_error",
  503: "overloaded_error",
  504: "timeout_error",
  529: "overloaded_error",
};
