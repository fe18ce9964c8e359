/** From a conversation to what an engine is asked, and how its answer is to be read. */
import type { ChatRequest } from "../../chat/chat-request.ts";
import { toolsInForce } from "../../chat/check-request.ts";
import { type Dialect, dialects, token } from "../../chat/dialect.ts";
import type { ParseOptions } from "../../chat/output-parser.ts";
import { encodePrompt, type PromptPart } from "../../chat/prompt.ts";
import { openedCalls, renderPrompt } from "../../chat/render-prompt.ts";
import { fullToolName } from "../../chat/tool-block.ts";
import type { RequestImage } from "../../engine/batching/engine-port.ts";
import type { Services } from "../route.ts";
import { checkImages, placePromptImages } from "./prompt-images.ts";

export interface EncodedPrompt {
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
export async function encodeChat(request: ChatRequest, services: Services): Promise<EncodedPrompt> {
  const { tokenizer, dialect } = services;
  checkImages(request, services.requireInfo());
  const prompt = renderPrompt(request, dialect);
  const placed = await placePromptImages(encodePrompt(prompt, tokenizer), prompt.images, services);
  const format = dialects[request.version ?? dialect];
  const names = toolsInForce(request).map((tool) => fullToolName(tool, format));
  return {
    ...placed,
    parse: prompt.parse,
    toolNames: new Set(names),
    opened: prompt.parse.inToolCalls ? openedCalls(format) : [],
    beginsWith: prompt.parse.inToolCalls ? names.map((name) => callOpening(name, format, tokenizer)) : undefined,
  };
}

/** The tokens of `<｜DSML｜invoke name="NAME">` and the newline behind it. */
function callOpening(name: string, dialect: Dialect, tokenizer: Services["tokenizer"]): number[] {
  const parts = [{ text: "<" }, { special: token.dsml }, { text: `${dialect.tags.call} name="${name}">\n` }];
  return encodePrompt({ parts }, tokenizer);
}
