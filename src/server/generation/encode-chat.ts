/** From a conversation to what an engine is asked, and how its answer is to be read. */
import type { ChatMessage, ChatRequest } from "../../chat/chat-request.ts";
import { toolsInForce } from "../../chat/check-request.ts";
import { type Dialect, dialects, token } from "../../chat/dialect.ts";
import type { ParseOptions } from "../../chat/output-parser.ts";
import { encodePrompt, type PromptPart } from "../../chat/prompt.ts";
import { openedCalls, renderPromptInSteps } from "../../chat/render-prompt.ts";
import { fullToolName } from "../../chat/tool-block.ts";
import type { RequestImage } from "../../engine/batching/engine-port.ts";
import { ImagePlaces } from "../../engine/vision/place-images.ts";
import { requestPacer } from "../request-pacer.ts";
import type { Services } from "../route.ts";
import type { ConversationMemory } from "./conversation-memory.ts";
import { checkImages, preparePromptImages } from "./prompt-images.ts";
import { restoreHistory } from "./restore-history.ts";

/** In which light a conversation is read: what is remembered of it is its namespace's alone. */
export interface ChatContext {
  readonly namespace: string;
  readonly services: Services;
  readonly memory: ConversationMemory;
}

export interface EncodedChat {
  /** The conversation as it was generated, where the server remembers it. */
  readonly request: ChatRequest;
  readonly tokenIds: readonly number[];
  /** Those whose tokens are in the prompt. */
  readonly images: readonly RequestImage[];
  /** Undefined for text that has no structure. */
  readonly parse: ParseOptions | undefined;
  readonly toolNames: ReadonlySet<string>;
  readonly opened: readonly PromptPart[];
  readonly beginsWith: readonly (readonly number[])[] | undefined;
}

/** Throws a RequestError for what the prompt format or the tokenizer cannot hold, an HttpError for images that cannot be read. */
export async function encodeChat(given: ChatRequest, context: ChatContext): Promise<EncodedChat> {
  const { services, memory, namespace } = context;
  const { tokenizer, dialect } = services;
  const info = services.requireInfo();
  checkImages(given, info);
  const request = await restoreHistory(withoutBillingHeaders(given), memory.turns, namespace);
  const pacer = requestPacer();
  const prompt = await pacer.finish(renderPromptInSteps(request, dialect));
  await pacer.pause();
  const images = await preparePromptImages(prompt.images, services);
  const places = info.images && images.length > 0 ? new ImagePlaces(info.images.tokenId, images) : undefined;
  const tokenIds = await memory.tokens.encode(
    namespace,
    prompt.parts,
    tokenizer,
    places && ((id) => places.tokensOf(id)),
  );
  places?.end();
  const format = dialects[request.version ?? dialect];
  const names = toolsInForce(request).map((tool) => fullToolName(tool, format));
  return {
    request,
    tokenIds,
    images,
    parse: prompt.parse,
    toolNames: new Set(names),
    opened: prompt.parse.inToolCalls ? openedCalls(format) : [],
    beginsWith: prompt.parse.inToolCalls ? names.map((name) => callOpening(name, format, tokenizer)) : undefined,
  };
}

/**
 * Claude Code puts a header for billing, different in each request, before the system text: with it no prompt would begin like
 * the one before. It says nothing to a model.
 */
function withoutBillingHeaders(request: ChatRequest): ChatRequest {
  const strip = (message: ChatMessage): ChatMessage =>
    message.role === "system"
      ? {
          ...message,
          content: message.content.filter((part) => part.type !== "text" || !part.text.startsWith("x-anthropic-")),
        }
      : message;
  return { ...request, messages: request.messages.map(strip) };
}

/** The tokens of `<｜DSML｜invoke name="NAME">` and the newline behind it. */
function callOpening(name: string, dialect: Dialect, tokenizer: Services["tokenizer"]): number[] {
  const parts = [{ text: "<" }, { special: token.dsml }, { text: `${dialect.tags.call} name="${name}">\n` }];
  return encodePrompt({ parts }, tokenizer);
}
