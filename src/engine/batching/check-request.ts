/** What a request must keep to before the engine takes it, whoever sent it. */
import { RequestError } from "../../errors.ts";
import { isContentId } from "../vision/content-ids.ts";
import type { EngineRequest } from "./engine-port.ts";
import { mostTopLogprobs } from "./token-logprobs.ts";

/** Throws a RequestError for what no engine could answer. */
export function checkRequest(request: EngineRequest, vocabSize: number, contextLength: number): void {
  const { tokenIds, generated, maxTokens, logprobs, promptLogprobs, beginsWith = [], priority } = request;
  if (tokenIds.length === 0) throw refuse("The prompt is empty", "tokenIds", "Give at least one token", "empty-prompt");
  if (tokenIds.length + 1 > contextLength)
    throw refuse(
      `The prompt has ${tokenIds.length} tokens, the context ${contextLength}`,
      "tokenIds",
      "Shorten the prompt: one token at least must fit behind it",
      "context_length_exceeded",
    );
  const hasPromptLogprobs = promptLogprobs !== undefined;
  if (hasPromptLogprobs && tokenIds.some(isContentId))
    throw refuse("Tokens of images have no log probabilities", "promptLogprobs", "Leave them out", "request");
  // Whether the images are still there is seen when the request starts.
  const ofImages = new Set(request.images?.flatMap((image) => image.tokenIds));
  const text = tokenIds.filter((id) => !(isContentId(id) && ofImages.has(id)));
  const lists = {
    tokenIds: text,
    generated,
    ...Object.fromEntries(beginsWith.map((ids, i) => [`beginsWith[${i}]`, ids])),
  };
  for (const [name, ids] of Object.entries(lists)) {
    const wrong = ids.find((id) => !Number.isInteger(id) || id < 0 || id >= vocabSize);
    if (wrong !== undefined)
      throw refuse(
        `The token id ${wrong} is not in the vocabulary`,
        name,
        `Give ids from 0 to ${vocabSize - 1}`,
        "token-id",
      );
  }
  checkRange("maxTokens", maxTokens, 1, Number.MAX_SAFE_INTEGER);
  checkRange("logprobs", logprobs ?? 0, 0, mostTopLogprobs);
  checkRange("promptLogprobs", promptLogprobs ?? 0, 0, mostTopLogprobs);
  checkRange("priority", priority, 0, 9);
}

function checkRange(name: string, value: number, least: number, most: number): void {
  if (Number.isInteger(value) && value >= least && value <= most) return;
  throw refuse(`${name} is ${value}`, name, `Give a whole number from ${least} to ${most}`, "request");
}

function refuse(message: string, where: string, hint: string, code: string): RequestError {
  return new RequestError(message, { where, hint, code });
}
