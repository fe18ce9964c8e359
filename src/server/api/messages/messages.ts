/** POST /v1/messages and /v1/messages/count_tokens, in the dialect of Anthropic. Versions and betas in headers are ignored. */
import type { AnswerResult } from "../../generation/answer-reader.ts";
import { encodeChat } from "../../generation/encode-chat.ts";
import { type PreparedChat, prepareChat } from "../../generation/prepare-chat.ts";
import { rememberAnswer } from "../../generation/restore-history.ts";
import { type AnswerUsage, runAnswers } from "../../generation/run-answers.ts";
import type { Call, Route, Services } from "../../route.ts";
import { AnswerStream, DeltaGatherer } from "../answer-stream.ts";
import type { ApiContext } from "../api-context.ts";
import { readBody } from "../request-body.ts";
import { type MessagesEvent, messagesRequest } from "../schemas/messages.ts";
import { servedModel } from "../served-model.ts";
import { type MessageHead, MessagesEncoder, wholeMessage } from "./messages-encoder.ts";
import { readMessagesBody } from "./read-messages-body.ts";

export function messagesRoutes(context: ApiContext): Route[] {
  const route = { method: "POST", scope: "infer", errors: "anthropic" } as const;
  return ["", "/anthropic"].flatMap((prefix): Route[] => [
    { ...route, path: `${prefix}/v1/messages`, handle: (call, services) => answerMessages(call, services, context) },
    {
      ...route,
      path: `${prefix}/v1/messages/count_tokens`,
      handle: (call, services) => countTokens(call, services, context),
    },
  ]);
}

async function countTokens(call: Call, services: Services, context: ApiContext): Promise<void> {
  const { chat } = await readMessagesBody(await readBody(messagesRequest, call.body));
  const { tokenIds } = await encodeChat(chat, { namespace: call.namespace, services, memory: context.memory });
  call.json(200, { input_tokens: tokenIds.length });
}

async function answerMessages(call: Call, services: Services, context: ApiContext): Promise<void> {
  const body = await readBody(messagesRequest, call.body);
  const model = servedModel(body.value.model, services, context);
  const { chat, options } = await readMessagesBody(body);
  const { memory } = context;
  const prepared = await prepareChat(chat, options, { call, services, memory, errors: "anthropic" });
  const head = { id: `msg_${call.requestId}`, model };
  const keep = (result: AnswerResult) =>
    rememberAnswer(prepared, result, { namespace: call.namespace, services, memory });
  if (body.value.stream) await streamMessage(call, services, prepared, head, keep);
  else await completeMessage(call, services, prepared, head, keep);
}

type Keep = (result: AnswerResult) => void;

async function completeMessage(call: Call, services: Services, { jobs }: PreparedChat, head: MessageHead, keep: Keep) {
  const { result, usage } = await wholeAnswer(call, services, jobs);
  keep(result);
  call.json(200, wholeMessage(head, result, usage));
}

/** The one answer of a request that is not streamed. */
export async function wholeAnswer(
  call: Call,
  services: Services,
  jobs: PreparedChat["jobs"],
): Promise<{ result: AnswerResult; usage: AnswerUsage }> {
  const results: AnswerResult[] = [];
  const usage = await runAnswers(call, services, jobs, {
    deltas() {},
    end(_, result) {
      results.push(result);
    },
  });
  return { result: results[0]!, usage };
}

async function streamMessage(
  call: Call,
  services: Services,
  { jobs }: PreparedChat,
  head: MessageHead,
  keep: Keep,
): Promise<void> {
  const stream = new AnswerStream(call);
  const encoder = new MessagesEncoder(head);
  stream.keepAliveWith({ type: "ping" }, "ping");
  const send = (events: readonly MessagesEvent[]) => {
    for (const event of events) stream.send(event, event.type);
  };
  let isStarted = false;
  const start = (cachedTokens: number) => {
    if (isStarted) return;
    isStarted = true;
    const promptTokens = jobs[0]!.tokenIds.length;
    send(encoder.start({ promptTokens, cachedTokens, generatedTokens: 0, reasoningTokens: 0 }));
  };
  const gatherer = new DeltaGatherer(stream, (_, deltas) => {
    for (const delta of deltas) send(encoder.delta(delta));
  });
  const answer = async () => {
    const results: AnswerResult[] = [];
    const usage = await runAnswers(call, services, jobs, {
      started: (_, cachedTokens) => start(cachedTokens),
      deltas(index, deltas) {
        start(0);
        gatherer.push(index, deltas);
      },
      end(_, result) {
        start(0);
        gatherer.flush();
        results.push(result);
        keep(result);
      },
    });
    send(encoder.end(results[0]!, usage));
  };
  await stream.run(answer, ({ message }) => send([{ type: "error", error: { type: "api_error", message } }]));
}
