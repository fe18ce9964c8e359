/**
 * POST /infill: what stands between a prefix and a suffix, for editors (llama.vim, llama.vscode). V4 has markers for one gap in one
 * file; other files go in front of the prefix as text. What does not fit is cut where it is farthest from the gap.
 */
import { renderFillInMiddle } from "../../../chat/render-prompt.ts";
import type { Tokenizer } from "../../../tokenizer/tokenizer.ts";
import { decodeText, encodeParts, encodeText } from "../../generation/encode-text.ts";
import { requestPacer } from "../../request-pacer.ts";
import type { Call, Route, Services } from "../../route.ts";
import type { ApiContext } from "../api-context.ts";
import { readBody, refuseUnsupported } from "../request-body.ts";
import { type InfillBody, infillRequest } from "../schemas/llama.ts";
import { answerPrompts } from "./llama-completion.ts";
import { llamaParameters } from "./llama-parameters.ts";

/** Where a request says nothing, and of the context at most a quarter. */
const defaultPredict = 256;

export function infillRoutes(context: ApiContext): Route[] {
  return [
    {
      method: "POST",
      path: "/infill",
      scope: "infer",
      errors: "llama",
      async handle(call: Call, services: Services) {
        const { value: body, json } = await readBody(infillRequest, call.body);
        refuseUnsupported(json, llamaParameters);
        const asked = body.n_predict ?? body.max_tokens ?? context.llama.predict ?? defaultPredict;
        const { contextLength } = services.requireInfo();
        const predicted = Math.min(asked < 0 ? defaultPredict : asked, Math.floor(contextLength / 4));
        const tokenIds = await infillTokens(body, contextLength - Math.max(1, predicted), services.tokenizer);
        const generation = { ...body, n_predict: asked };
        await answerPrompts(call, services, context, { body: generation, tokenIds: [tokenIds], isList: false });
      },
    },
  ];
}

/** At most `room` tokens: first other files are cut at their front, then the suffix at its end, then the prefix at its front. */
export async function infillTokens(body: InfillBody, room: number, tokenizer: Tokenizer): Promise<readonly number[]> {
  const pacer = requestPacer();
  const encode = (text: string) => encodeText(text, tokenizer, pacer);
  const encodeGap = (prefix: string, suffix: string) =>
    encodeParts(renderFillInMiddle(prefix, suffix).parts, tokenizer, pacer);
  const others = body.input_extra.map(({ filename, text }) => `${filename ?? "file"}\n${text}\n\n`).join("");
  const begun = await encode(body.prompt);
  const whole = (await encodeGap(others + body.input_prefix, body.input_suffix)).concat(begun);
  if (whole.length <= room) return whole;
  const markers = (await encodeGap("", "")).length;
  // What the gap begins with is kept: when it alone is too long, the request is refused like any that is.
  const left = Math.max(2, room - markers - begun.length);
  const suffixRoom = Math.max(Math.floor(left / 4), left - (await encode(body.input_prefix)).length);
  const decode = (ids: readonly number[]) => decodeText(ids, tokenizer, pacer);
  const suffix = await cut(body.input_suffix, suffixRoom, "end", encode, decode);
  const prefixRoom = left - (await encode(suffix)).length;
  const prefix = await cut(others + body.input_prefix, prefixRoom, "front", encode, decode);
  return (await encodeGap(prefix, suffix)).concat(begun);
}

/** Text of so many tokens at most. Cut text may take other tokens than it did whole: it is cut again until it fits. */
async function cut(
  text: string,
  room: number,
  side: "front" | "end",
  encode: (text: string) => Promise<number[]>,
  decode: (ids: readonly number[]) => Promise<string>,
): Promise<string> {
  let kept = text;
  for (let ids = await encode(kept); ids.length > room && kept !== ""; ids = await encode(kept)) {
    const take = Math.max(0, room - (kept === text ? 0 : 1));
    const part = side === "front" ? ids.slice(ids.length - take) : ids.slice(0, take);
    const shorter = (await decode(part)).replaceAll("\ufffd", "");
    kept = shorter.length < kept.length ? shorter : "";
  }
  return kept;
}
