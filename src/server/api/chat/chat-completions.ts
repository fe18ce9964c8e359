/** POST /v1/chat/completions, in the dialect of OpenAI and DeepSeek. */
import type { AnswerResult } from "../../generation/answer-reader.ts";
import { type PreparedChat, prepareChat } from "../../generation/prepare-chat.ts";
import { readableIds } from "../../generation/prompt-images.ts";
import { rememberAnswer } from "../../generation/restore-history.ts";
import { runAnswers } from "../../generation/run-answers.ts";
import type { Call, Route, Services } from "../../route.ts";
import { AnswerStream, DeltaGatherer } from "../answer-stream.ts";
import type { ApiContext } from "../api-context.ts";
import { TimingClock } from "../llama/llama-timings.ts";
import { readBody } from "../request-body.ts";
import { type ChatBody, chatRequest } from "../schemas/chat.ts";
import { servedModel } from "../served-model.ts";
import { type AnswerHead, ChatEncoder, type ChoiceTokens } from "./chat-encoder.ts";
import { readChatBody } from "./read-chat-body.ts";

export function chatRoutes(context: ApiContext): Route[] {
  const paths = ["/v1/chat/completions", "/chat/completions", "/beta/chat/completions", "/beta/v1/chat/completions"];
  return paths.map((path) => ({
    method: "POST",
    path,
    scope: "infer",
    errors: "openai",
    handle: (call, services) => answerChat(call, services, context),
  }));
}

async function answerChat(call: Call, services: Services, context: ApiContext): Promise<void> {
  const body = await readBody(chatRequest, call.body);
  const model = servedModel(body.value.model, services, context);
  const { chat, options } = await readChatBody(body, context.thinking);
  const { memory } = context;
  const prepared = await prepareChat(chat, options, { call, services, memory, errors: "openai" });
  const encoder = new ChatEncoder(answerHead("chatcmpl", model, call, services), options.logprobs !== undefined);
  const keep = (result: AnswerResult) =>
    rememberAnswer(prepared, result, { namespace: call.namespace, services, memory });
  if (body.value.stream) await streamChat(call, services, prepared, encoder, body.value, keep);
  else await completeChat(call, services, prepared, encoder, body.value, keep);
}

export function answerHead(prefix: string, model: string, call: Call, { now, version }: Services): AnswerHead {
  return {
    id: `${prefix}-${call.requestId}`,
    created: Math.floor(now()),
    model,
    system_fingerprint: `build_freehold_${version}`,
  };
}

type Keep = (result: AnswerResult) => void;

async function completeChat(
  call: Call,
  services: Services,
  { jobs }: PreparedChat,
  encoder: ChatEncoder,
  { verbose }: ChatBody,
  keep: Keep,
): Promise<void> {
  const results: AnswerResult[] = [];
  const tokens: ChoiceTokens[] = jobs.map(() => ({ content: [], reasoning: [] }));
  const usage = await runAnswers(call, services, jobs, {
    deltas(index, deltas) {
      for (const delta of deltas) {
        if (delta.type === "content" || delta.type === "reasoning")
          tokens[index]![delta.type].push(...(delta.tokens ?? []));
      }
    },
    end(index, result) {
      results[index] = result;
      keep(result);
    },
  });
  const prompt = verbose
    ? { __verbose: { prompt: services.tokenizer.decode(readableIds(jobs[0]!.tokenIds, services.requireInfo())) } }
    : {};
  call.json(200, { ...encoder.whole(results, tokens, usage), ...prompt });
}

async function streamChat(
  call: Call,
  services: Services,
  { jobs }: PreparedChat,
  encoder: ChatEncoder,
  body: ChatBody,
  keep: Keep,
): Promise<void> {
  const stream = new AnswerStream(call);
  const opened = new Set<number>();
  const open = (index: number) => {
    if (opened.has(index)) return;
    opened.add(index);
    stream.send(encoder.open(index));
  };
  const clock = new TimingClock(jobs[0]!.tokenIds.length, () => performance.now());
  const sendProgress = (index: number) => {
    const progress = index === 0 && body.return_progress ? clock.newProgress() : undefined;
    if (progress !== undefined) stream.send(encoder.progress(index, progress));
  };
  const gatherer = new DeltaGatherer(stream, (index, deltas) => {
    for (const delta of deltas) stream.send(encoder.delta(index, delta));
  });
  const answer = async () => {
    const usage = await runAnswers(call, services, jobs, {
      started(index, cachedTokens) {
        open(index);
        if (index === 0) clock.started(cachedTokens);
        sendProgress(index);
      },
      prefill(index, done) {
        if (index === 0) clock.prefilled(done);
        sendProgress(index);
      },
      token(index) {
        if (index === 0) clock.token();
        sendProgress(index);
        return undefined;
      },
      deltas(index, deltas) {
        open(index);
        gatherer.push(index, deltas);
      },
      end(index, result) {
        open(index);
        gatherer.flush();
        stream.send(encoder.close(index, result));
        keep(result);
      },
    });
    const timings = body.timings_per_token ? { timings: { ...clock.timings } } : {};
    if (body.stream_options?.include_usage) stream.send({ ...encoder.usage(usage), ...timings });
    stream.sendDone();
  };
  await stream.run(answer, ({ code, message }) => {
    stream.send({ error: { message, type: "server_error", param: null, code } });
  });
}
