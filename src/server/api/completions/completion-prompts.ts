/** The prompts of a completion request as token ids, and how their text reads. */
import { encodePrompt } from "../../../chat/prompt.ts";
import { renderFillInMiddle } from "../../../chat/render-prompt.ts";
import type { EngineInfo } from "../../../engine/batching/engine-port.ts";
import { RequestError } from "../../../errors.ts";
import type { Tokenizer } from "../../../tokenizer/tokenizer.ts";
import type { CompletionBody } from "../schemas/completions.ts";

export interface CompletionPrompt {
  readonly tokenIds: readonly number[];
  /** What `echo` shows. */
  readonly text: string;
}

const maxPrompts = 128;

export function completionPrompts(body: CompletionBody, info: EngineInfo, tokenizer: Tokenizer): CompletionPrompt[] {
  const list = listOf(body.prompt);
  if (list.length * (body.n ?? 1) > maxPrompts) {
    throw new RequestError(`The request asks for more than ${maxPrompts} answers`, {
      code: "request",
      where: "prompt",
    });
  }
  return list.map((prompt, i) => {
    const where = list.length > 1 ? `prompt[${i}]` : "prompt";
    if (typeof prompt !== "string") return promptOfIds(prompt, body, info, tokenizer, where);
    if (body.suffix !== undefined && body.suffix !== "")
      return { tokenIds: encodePrompt(renderFillInMiddle(prompt, body.suffix), tokenizer), text: prompt };
    // Raw is raw: special tokens may be spelled.
    const begin = info.addsBeginOfSequence ? [info.bosTokenId] : [];
    const tokenIds = [...begin, ...tokenizer.encode(prompt, { special: true })];
    if (tokenIds.length === 0) tokenIds.push(info.bosTokenId); // an empty prompt: the model begins
    return { tokenIds, text: prompt };
  });
}

function promptOfIds(
  tokenIds: readonly number[],
  { suffix, echo }: CompletionBody,
  { vocabSize }: EngineInfo,
  tokenizer: Tokenizer,
  where: string,
): CompletionPrompt {
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
  return { tokenIds, text: echo ? tokenizer.decode(tokenIds) : "" };
}

function listOf(prompt: CompletionBody["prompt"]): readonly (string | readonly number[])[] {
  if (typeof prompt === "string") return [prompt];
  return typeof prompt[0] === "number" ? [prompt as number[]] : (prompt as string[] | number[][]);
}
