/**
 * GET and DELETE /v1/stream, as llama-server has them: a page that was loaded again reads on in the answer that it asked for before,
 * with nothing but the id that it gave its conversation (X-Conversation-Id). Unlike there, `from` counts events, so that the browser's
 * own EventSource goes on by itself.
 */
import { quoted } from "../../errors.ts";
import type { HttpCall } from "../http/http-call.ts";
import { HttpError } from "../http-error.ts";
import type { Call, Route } from "../route.ts";
import { lastEventId } from "./answer-follower.ts";
import { conversationKey, type KeptAnswers } from "./kept-answers.ts";

export function streamRoutes(kept: KeptAnswers): readonly Route[] {
  const route = { path: "/v1/stream", scope: "infer", errors: "openai" } as const;
  return [
    { ...route, method: "GET", handle: (call) => readOn(call, kept) },
    { ...route, method: "DELETE", handle: async (call) => stop(call, kept) },
  ];
}

async function readOn(call: Call, kept: KeptAnswers): Promise<void> {
  const { id, name } = conversationOf(call);
  const answer = kept.named(call.key, name);
  if (answer === undefined) {
    throw new HttpError(404, `There is no stream of the conversation ${quoted(id)}`, {
      code: "stream-gone",
      where: "conv_id",
      hint: "Send X-Conversation-Id with the request; answers are kept for a while",
    });
  }
  const seen = call.headers["last-event-id"] ?? call.url.searchParams.get("from") ?? "0";
  // The gateway gives its routes HttpCalls.
  await (call as HttpCall).follow(answer, lastEventId(String(seen)));
}

/** Ends the answer if it still runs. That it is gone already is no fault. */
function stop(call: Call, kept: KeptAnswers): void {
  const answer = kept.named(call.key, conversationOf(call).name);
  if (answer !== undefined) kept.stop(answer);
  call.text(204, "", "text/plain");
}

function conversationOf({ url }: Call): { readonly id: string; readonly name: string } {
  const id = url.searchParams.get("conv_id") ?? "";
  return { id, name: conversationKey(id) };
}
