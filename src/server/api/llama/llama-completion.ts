/** POST /completion (and /completions without a version in front), in llama-server's own shape: raw text in, raw text out. */
import { fitContext } from "../../generation/fit-context.ts";
import { stopTokens } from "../../generation/prepare-chat.ts";
import { type AnswerJob, type AnswerListener, runAnswers } from "../../generation/run-answers.ts";
import type { Call, Route, Services } from "../../route.ts";
import { AnswerStream } from "../answer-stream.ts";
import type { ApiContext } from "../api-context.ts";
import { readBody, refuseUnsupported } from "../request-body.ts";
import { type LlamaGenerationBody, llamaCompletionRequest } from "../schemas/llama.ts";
import { servedModel } from "../served-model.ts";
import { type LlamaSettings, llamaSettings } from "./generation-settings.ts";
import { LlamaAnswer } from "./llama-answer.ts";
import { llamaParameters } from "./llama-parameters.ts";
import { llamaPrompts } from "./llama-prompts.ts";
import { pickFields } from "./response-fields.ts";

export function llamaCompletionRoutes(context: ApiContext): Route[] {
  return ["/completion", "/completions"].map((path) => ({
    method: "POST",
    path,
    scope: "infer",
    errors: "llama",
    handle: (call, services) => answerCompletion(call, services, context),
  }));
}

async function answerCompletion(call: Call, services: Services, context: ApiContext): Promise<void> {
  const { value: body, json } = await readBody(llamaCompletionRequest, call.body);
  refuseUnsupported(json, llamaParameters);
  const prompts = await llamaPrompts(body.prompt, services);
  await answerPrompts(call, services, context, { body, ...prompts });
}

export interface PromptsToAnswer {
  readonly body: LlamaGenerationBody & { readonly model?: unknown };
  readonly tokenIds: readonly (readonly number[])[];
  readonly isList: boolean;
}

/** What completion and infill share: from prompts to one answer, a list of them, or a stream. */
export async function answerPrompts(
  call: Call,
  services: Services,
  context: ApiContext,
  { body, tokenIds, isList }: PromptsToAnswer,
): Promise<void> {
  const settings = llamaSettings(body, services, context.llama);
  const model = servedModel(typeof body.model === "string" ? body.model : undefined, services, context);
  const jobs = tokenIds.map((ids) => jobOf(ids, settings, services));
  const answers = tokenIds.map((promptIds, index) => {
    const { tokenizer } = services;
    return new LlamaAnswer({ index, promptIds, model, body, settings, tokenizer, nowMs: () => performance.now() });
  });
  if (body.stream) await streamAnswers(call, services, body, jobs, answers);
  else {
    await runAnswers(call, services, jobs, listenerOf(answers));
    const told = answers.map((answer) => pickFields(answer.whole(), body.response_fields));
    call.json(200, isList ? told : told[0]);
  }
}

function jobOf(
  tokenIds: readonly number[],
  { sampling, nPredict, stop, nProbs, probabilitiesOf, ignoresEos }: LlamaSettings,
  services: Services,
): AnswerJob {
  const info = services.requireInfo();
  return {
    tokenIds,
    plan: {
      parse: undefined,
      stop: stop.filter((text) => text !== ""),
      stopTokenIds: stopTokens(info, { ignoreEos: ignoresEos }),
      toolNames: new Set(),
      maxCalls: 0,
      opened: [],
    },
    sampling,
    // An answer of no tokens (to warm the cache) costs one all the same: an engine gives at least that.
    maxTokens: fitContext(tokenIds.length, Math.max(1, nPredict ?? info.contextLength), info.contextLength, "llama"),
    logprobs: nProbs > 0 ? nProbs : undefined,
    logprobsOf: probabilitiesOf,
    promptLogprobs: undefined,
    beginsWith: undefined,
    countsPrompt: true,
  };
}

function listenerOf(answers: readonly LlamaAnswer[]): AnswerListener {
  return {
    started: (index, cachedTokens) => answers[index]!.started(cachedTokens),
    prefill: (index, done) => answers[index]!.prefilled(done),
    token: (index, token) => answers[index]!.token(token),
    deltas: () => undefined,
    end: (index, result, usage) => answers[index]!.end(result, usage),
  };
}

/** A part a token, unless the client reads too slowly; there is no end mark, the last part of each answer says so. */
async function streamAnswers(
  call: Call,
  services: Services,
  body: LlamaGenerationBody,
  jobs: readonly AnswerJob[],
  answers: readonly LlamaAnswer[],
): Promise<void> {
  const stream = new AnswerStream(call);
  const send = (part: object | undefined) => {
    if (part !== undefined) stream.send(part);
  };
  const sendProgress = (index: number) => {
    if (body.return_progress) send(answers[index]!.progress());
  };
  const listener = listenerOf(answers);
  const answer = async () => {
    await runAnswers(call, services, jobs, {
      ...listener,
      started(index, cachedTokens) {
        listener.started!(index, cachedTokens);
        sendProgress(index);
      },
      prefill(index, done, total) {
        listener.prefill!(index, done, total);
        sendProgress(index);
      },
      token(index, token) {
        const enough = listener.token!(index, token);
        sendProgress(index);
        if (!stream.isCongested) send(answers[index]!.part());
        return enough;
      },
      end(index, result, usage) {
        listener.end(index, result, usage);
        send(answers[index]!.part());
        send(pickFields(answers[index]!.close(), body.response_fields));
      },
    });
  };
  await stream.run(answer, ({ code, message }) => {
    stream.send({ error: { code: 500, message, type: code } });
  });
}
