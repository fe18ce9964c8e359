/** The prompts of a llama-server completion: a text, token ids, both in turn, or a list of those. */
import type { EngineInfo } from "../../../engine/batching/engine-port.ts";
import type { Pacer } from "../../../engine/pacer.ts";
import { RequestError } from "../../../errors.ts";
import { encodeText } from "../../generation/encode-text.ts";
import { HttpError } from "../../http-error.ts";
import { requestPacer } from "../../request-pacer.ts";
import type { Services } from "../../route.ts";
import type { LlamaCompletionBody } from "../schemas/llama.ts";

type OnePrompt = string | readonly (string | number)[] | { readonly prompt_string: string; multimodal_data?: unknown };

const maxPrompts = 128;

export interface LlamaPrompts {
  readonly tokenIds: readonly (readonly number[])[];
  /** Whether the answer is a list: a list of one prompt is answered like the prompt. */
  readonly isList: boolean;
}

export async function llamaPrompts(prompt: LlamaCompletionBody["prompt"], services: Services): Promise<LlamaPrompts> {
  const list = listOf(prompt);
  if (list.length === 0) throw wrong("prompt", "There is no prompt");
  if (list.length > maxPrompts) throw wrong("prompt", `There are more than ${maxPrompts} prompts`);
  const pacer = requestPacer();
  const tokenIds: (readonly number[])[] = [];
  for (const [i, one] of list.entries())
    tokenIds.push(await promptTokens(one, list.length > 1 ? `prompt[${i}]` : "prompt", services, pacer));
  return { tokenIds, isList: list.length > 1 };
}

/** An array with a number in it is one prompt; any other array is a list of prompts. */
function listOf(prompt: LlamaCompletionBody["prompt"]): readonly OnePrompt[] {
  if (!Array.isArray(prompt)) return [prompt as OnePrompt];
  return prompt.some((item) => typeof item === "number") ? [prompt as (string | number)[]] : (prompt as OnePrompt[]);
}

async function promptTokens(
  prompt: OnePrompt,
  where: string,
  services: Services,
  pacer: Pacer,
): Promise<readonly number[]> {
  const { tokenizer } = services;
  const info = services.requireInfo();
  const textTokens = (text: string) => encodeText(text, tokenizer, pacer, { special: true });
  const begin = info.addsBeginOfSequence ? [info.bosTokenId] : [];
  if (Array.isArray(prompt)) {
    const parts = prompt as readonly (string | number)[];
    const ids: number[] = [];
    for (const part of parts) {
      if (typeof part === "number") ids.push(knownToken(part, info, where));
      else for (const id of await textTokens(part)) ids.push(id);
    }
    return orBegin(typeof parts[0] === "string" ? begin.concat(ids) : ids, info);
  }
  const text = typeof prompt === "string" ? prompt : textOf(prompt as Exclude<OnePrompt, string | readonly unknown[]>);
  return orBegin(begin.concat(await textTokens(text)), info);
}

function textOf({ prompt_string, multimodal_data }: { prompt_string: string; multimodal_data?: unknown }): string {
  if (multimodal_data === undefined || multimodal_data === null) return prompt_string;
  throw new HttpError(501, "Media in prompts are not offered by this server", {
    code: "not_implemented",
    where: "multimodal_data",
    hint: "The loaded model reads text",
  });
}

function knownToken(id: number, { vocabSize }: EngineInfo, where: string): number {
  if (id < vocabSize) return id;
  throw wrong(where, `No token has the id ${id}`, `Ids go from 0 to ${vocabSize - 1}`);
}

/** An empty prompt: the model begins. */
function orBegin(ids: readonly number[], { bosTokenId }: EngineInfo): readonly number[] {
  return ids.length > 0 ? ids : [bosTokenId];
}

function wrong(where: string, message: string, hint?: string): RequestError {
  return new RequestError(message, { code: "request", where, ...(hint === undefined ? {} : { hint }) });
}
