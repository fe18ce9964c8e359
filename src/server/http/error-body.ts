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
  readonly tokens: HttpError["tokens"];
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
      tokens: undefined,
    };
  }
  const { status, retryAfterSeconds, headers } =
    error instanceof HttpError ? error : { status: statusOf(error), retryAfterSeconds: undefined, headers: {} };
  const tokens = error.code === tooLong ? tokensOf(error) : undefined;
  const message = error.hint === undefined ? error.message : `${error.message.replace(/\.$/, "")}. ${error.hint}`;
  return { status, code: error.code, message, where: error.where, retryAfterSeconds, headers, tokens };
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

/** OpenAI's, and for a prompt that is too long llama-server's type and fields beside OpenAI's code and words. */
function openaiError({ status, code, message, where, tokens }: Description) {
  if (tokens !== undefined) {
    const words = `This model's maximum context length is ${tokens.context} tokens`;
    const text = message.startsWith(words) ? message : `${words}, but the request needs ${tokens.prompt}. ${message}`;
    return { message: text, type: tooLongType, param: where ?? "messages", code, ...tokenFields(tokens) };
  }
  const type = openaiTypes[status] ?? (status < 500 ? "invalid_request_error" : "server_error");
  return { message, type, param: where ?? null, code: openaiCodes[status] ?? code };
}

function anthropicError({ status, message, tokens }: Description) {
  const type = anthropicTypes[status] ?? (status < 500 ? "invalid_request_error" : "api_error");
  if (tokens === undefined || message.startsWith("prompt is too long")) return { type, message };
  return { type, message: `prompt is too long: ${tokens.prompt} tokens > ${tokens.context} maximum` };
}

/** llama-server's: `code` is the status; a prompt that is too long tells both lengths in fields. */
function llamaError({ status, message, tokens }: Description) {
  if (tokens !== undefined) return { code: status, message, type: tooLongType, ...tokenFields(tokens) };
  const type = llamaTypes[status] ?? (status < 500 ? "invalid_request_error" : "server_error");
  return { code: status, message, type };
}

const tooLong = "context_length_exceeded";
const tooLongType = "exceed_context_size_error";

function tokenFields({ prompt, context }: NonNullable<HttpError["tokens"]>) {
  return { n_prompt_tokens: prompt, n_ctx: context };
}

/** The engine says it in words: "The prompt has 70 tokens and needs room for 8 more, the context only 64". */
function tokensOf(error: FreeholdError): HttpError["tokens"] {
  if (error instanceof HttpError && error.tokens !== undefined) return error.tokens;
  const numbers = (error.message.match(/\d+/g) ?? []).map(Number);
  if (numbers.length < 2) return undefined;
  return { prompt: numbers.slice(0, -1).reduce((sum, count) => sum + count, 0), context: numbers.at(-1)! };
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
