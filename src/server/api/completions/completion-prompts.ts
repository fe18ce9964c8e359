/** The prompts of a completion request as token ids, and how their text reads. */
import { renderFillInMiddle } from "../../../chat/render-prompt.ts";
import type { EngineInfo } from "../../../engine/batching/engine-port.ts";
import type { Pacer } from "../../../engine/pacer.ts";
import { RequestError } from "../../../errors.ts";
import type { Tokenizer } from "../../../tokenizer/tokenizer.ts";
import { decodeText, encodeParts, encodeText } from "../../generation/encode-text.ts";
import { requestPacer } from "../../request-pacer.ts";
import type { CompletionBody } from "../schemas/completions.ts";

export interface CompletionPrompt {
  readonly tokenIds: readonly number[];
  /** What `echo` shows. */
  readonly text: string;
}

const maxPrompts = 128;

export async function completionPrompts(
  body: CompletionBody,
  info: EngineInfo,
  tokenizer: Tokenizer,
): Promise<CompletionPrompt[]> {
  const list = listOf(body.prompt);
  if (list.length * (body.n ?? 1) > maxPrompts) {
    throw new RequestError(`The request asks for more than ${maxPrompts} answers`, {
      code: "request",
      where: "prompt",
    });
  }
  const pacer = requestPacer();
  const prompts: CompletionPrompt[] = [];
  for (const [i, prompt] of list.entries()) {
    const where = list.length > 1 ? `prompt[${i}]` : "prompt";
    prompts.push(
      typeof prompt === "string"
        ? { tokenIds: await tokensOfText(prompt, body, info, tokenizer, pacer), text: prompt }
        : await promptOfIds(prompt, body, info, tokenizer, pacer, where),
    );
  }
  return prompts;
}

async function tokensOfText(
  prompt: string,
  { suffix }: CompletionBody,
  info: EngineInfo,
  tokenizer: Tokenizer,
  pacer: Pacer,
): Promise<readonly number[]> {
  if (suffix !== undefined && suffix !== "")
    return encodeParts(renderFillInMiddle(prompt, suffix).parts, tokenizer, pacer);
  // Raw is raw: special tokens may be spelled.
  const tokenIds = await encodeText(prompt, tokenizer, pacer, { special: true });
  // An empty prompt: the model begins.
  if (info.addsBeginOfSequence || tokenIds.length === 0) tokenIds.unshift(info.bosTokenId);
  return tokenIds;
}

async function promptOfIds(
  tokenIds: readonly number[],
  { suffix, echo }: CompletionBody,
  { vocabSize }: EngineInfo,
  tokenizer: Tokenizer,
  pacer: Pacer,
  where: string,
): Promise<CompletionPrompt> {
  if (suffix !== undefined && suffix !== "") {
    throw new RequestError("A gap is filled between texts only", {
      code: "request",
      where: "suffix",
      hint: "Give the prompt as a text",
    });
  }
  const wrong = tokenIds.find((id) => id >= vocabSize);
  if (wrong !== undefined) {
    throw new RequestError(`No token has the id ${wrong}`, {
      code: "request",
      where,
      hint: `Ids go from 0 to ${vocabSize - 1}`,
    });
  }
  return { tokenIds, text: echo ? await decodeText(tokenIds, tokenizer, pacer) : "" };
}

function listOf(prompt: CompletionBody["prompt"]): readonly (string | readonly number[])[] {
  if (typeof prompt === "string") return [prompt];
  return typeof prompt[0] === "number" ? [prompt as number[]] : (prompt as string[] | number[][]);
}
