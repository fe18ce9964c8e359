/** From a conversation to what an engine is asked, and how its answer is to be read. */
import type { ChatRequest } from "../../chat/chat-request.ts";
import { toolsInForce } from "../../chat/check-request.ts";
import { type Dialect, dialects, token } from "../../chat/dialect.ts";
import type { ParseOptions } from "../../chat/output-parser.ts";
import { encodePrompt, type PromptPart } from "../../chat/prompt.ts";
import { openedCalls, renderPrompt } from "../../chat/render-prompt.ts";
import { fullToolName } from "../../chat/tool-block.ts";
import { RequestError } from "../../errors.ts";
import type { Services } from "../route.ts";

export interface EncodedPrompt {
  readonly tokenIds: readonly number[];
  /** Undefined for text that has no structure. */
  readonly parse: ParseOptions | undefined;
  readonly toolNames: ReadonlySet<string>;
  readonly opened: readonly PromptPart[];
  readonly beginsWith: readonly (readonly number[])[] | undefined;
}

/** Throws a RequestError for what the prompt format or the tokenizer cannot hold. */
export function encodeChat(request: ChatRequest, { tokenizer, dialect }: Services): EncodedPrompt {
  const prompt = renderPrompt(request, dialect);
  if (prompt.images.length > 0) {
    throw new RequestError("The request holds images, which this server cannot read yet", {
      code: "unsupported_image",
      where: "messages",
      hint: "Send text only",
    });
  }
  const format = dialects[request.version ?? dialect];
  const names = toolsInForce(request).map((tool) => fullToolName(tool, format));
  return {
    tokenIds: encodePrompt(prompt, tokenizer),
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
