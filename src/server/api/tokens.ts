/** POST /tokenize, /detokenize and /apply-template, as llama-server and vLLM have them. */
import { renderPromptInSteps } from "../../chat/render-prompt.ts";
import type { Pacer } from "../../engine/pacer.ts";
import { RequestError } from "../../errors.ts";
import { encodeChat } from "../generation/encode-chat.ts";
import { decodeText, encodeText, mapTokens } from "../generation/encode-text.ts";
import { readableIds } from "../generation/prompt-images.ts";
import { requestPacer } from "../request-pacer.ts";
import type { Call, Route, Services } from "../route.ts";
import type { ApiContext } from "./api-context.ts";
import { readChatBody } from "./chat/read-chat-body.ts";
import { readBody } from "./request-body.ts";
import { chatRequest } from "./schemas/chat.ts";
import { detokenizeRequest, type TokenizeAnswer, tokenizeRequest } from "./schemas/tokens.ts";

export function tokenRoutes(context: ApiContext): Route[] {
  const { thinking } = context;
  const route = { method: "POST", scope: "infer", errors: "openai" } as const;
  return [
    { ...route, path: "/tokenize", handle: async (call, services) => tokenize(call, services, context) },
    { ...route, path: "/detokenize", handle: async (call, services) => detokenize(call, services) },
    ...["/v1/chat/completions/input_tokens", "/chat/completions/input_tokens"].map(
      (path): Route => ({
        ...route,
        path,
        handle: async (call, services) => countChatTokens(call, services, context),
      }),
    ),
    { ...route, path: "/apply-template", handle: async (call, services) => applyTemplate(call, services, thinking) },
  ];
}

async function tokenize(call: Call, services: Services, context: ApiContext): Promise<void> {
  const { value: body } = await readBody(tokenizeRequest, call.body);
  const { tokenizer } = services;
  const pacer = requestPacer();
  const isText = body.messages === undefined;
  const ids = isText ? await textTokens(body, services, pacer) : await chatTokens(call, services, context);
  const answer: TokenizeAnswer = {
    tokens: body.with_pieces
      ? await mapTokens(ids, pacer, (id) => ({ id, piece: pieceOf(id, services) }))
      : ids.slice(),
    count: ids.length,
    max_model_len: services.requireInfo().contextLength,
    token_strs: body.return_token_strs ? await mapTokens(ids, pacer, (id) => tokenizer.decode([id])) : null,
  };
  call.json(200, answer);
}

async function textTokens(
  body: ReturnType<(typeof tokenizeRequest)["parse"]>,
  services: Services,
  pacer: Pacer,
): Promise<readonly number[]> {
  const text = body.content ?? body.prompt;
  if (text === undefined)
    throw new RequestError("There is no text", {
      code: "request",
      where: "content",
      hint: "Give content, prompt or messages",
    });
  const info = services.requireInfo();
  const ids = await encodeText(text, services.tokenizer, pacer, { special: body.parse_special ?? true });
  // As with raw prompts: a begin-of-sequence token only for a model whose tokenizer puts one.
  const begins = info.addsBeginOfSequence && (body.add_special ?? body.add_special_tokens ?? false);
  if (begins) ids.unshift(info.bosTokenId);
  return ids;
}

async function chatTokens(
  call: Call,
  services: Services,
  { memory, thinking }: ApiContext,
): Promise<readonly number[]> {
  const { chat } = await readChatBody(await readBody(chatRequest, call.body), thinking);
  const { tokenIds } = await encodeChat(chat, { namespace: call.namespace, services, memory });
  return readableIds(tokenIds, services.requireInfo());
}

/** How long the prompt of a conversation is: POST /v1/chat/completions/input_tokens. */
async function countChatTokens(call: Call, services: Services, context: ApiContext): Promise<void> {
  call.json(200, { input_tokens: (await chatTokens(call, services, context)).length });
}

/** The text of a token, or its bytes where they are no text. */
function pieceOf(id: number, { tokenizer }: Services): string | number[] {
  const bytes = tokenizer.tokenBytes(id);
  const text = tokenizer.decode([id]);
  return text.includes("\ufffd") ? [...bytes] : text;
}

async function detokenize(call: Call, { tokenizer }: Services): Promise<void> {
  const { value } = await readBody(detokenizeRequest, call.body);
  const text = await decodeText(value.tokens, tokenizer, requestPacer());
  call.json(200, { content: text, prompt: text });
}

async function applyTemplate(call: Call, services: Services, thinks: boolean): Promise<void> {
  const { chat } = await readChatBody(await readBody(chatRequest, call.body), thinks);
  const prompt = await requestPacer().finish(renderPromptInSteps(chat, services.dialect));
  call.json(200, { prompt: prompt.text });
}
