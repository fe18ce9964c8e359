/** How long an answer may be, given what the context has room for. */
import { HttpError } from "../http-error.ts";
import type { ErrorDialect } from "../route.ts";

/**
 * The tokens that an answer may have: those asked for, at most what is left. A prompt that leaves no room is refused in the
 * words that the dialect's own service uses: agents look for them, and shorten their history.
 */
export function fitContext(
  promptTokens: number,
  maxTokens: number,
  contextLength: number,
  dialect: ErrorDialect,
): number {
  const room = contextLength - promptTokens;
  if (room >= 1) return Math.min(maxTokens, room);
  throw new HttpError(400, overflowMessage(promptTokens, contextLength, dialect), {
    code: "context_length_exceeded",
    tokens: { prompt: promptTokens, context: contextLength },
    where: dialect === "openai" ? "messages" : "prompt",
    hint: "Shorten the conversation, or start the server with a larger --context",
  });
}

function overflowMessage(promptTokens: number, contextLength: number, dialect: ErrorDialect): string {
  if (dialect === "llama")
    return `The request of ${promptTokens} tokens exceeds the available context size (${contextLength} tokens)`;
  if (dialect === "anthropic") return `prompt is too long: ${promptTokens} tokens > ${contextLength - 1} maximum`;
  return `This model's maximum context length is ${contextLength} tokens. However, your messages resulted in ${promptTokens} tokens. Please reduce the length of the messages.`;
}
