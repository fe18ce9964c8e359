/** POST /v1/completions: plain text, or the gap between a prompt and a suffix. No token of the answer is a marker. */
import type { TokenLogprob } from "../../../engine/batching/engine-port.ts";
import { fitContext } from "../../generation/fit-context.ts";
import { repeatJob, stopTokens } from "../../generation/prepare-chat.ts";
import { type AnswerJob, type AnswerUsage, runAnswers } from "../../generation/run-answers.ts";
import type { Call, Route, Services } from "../../route.ts";
import { AnswerStream, DeltaGatherer } from "../answer-stream.ts";
import type { ApiContext } from "../api-context.ts";
import { answerHead } from "../chat/chat-completions.ts";
import { openAiUsage } from "../openai-usage.ts";
import { type ParameterRule, readBody, refuseUnsupported } from "../request-body.ts";
import { readSampling } from "../sampling-fields.ts";
import { type CompletionBody, type CompletionChunk, completionRequest } from "../schemas/completions.ts";
import { servedModel } from "../served-model.ts";
import { CompletionChoice } from "./completion-choice.ts";
import { type CompletionPrompt, completionPrompts } from "./completion-prompts.ts";

export const completionParameters = {
  model: "honoured",
  prompt: "honoured",
  suffix: "honoured",
  max_tokens: "honoured",
  n: "honoured",
  stream: "honoured",
  stream_options: "honoured",
  logprobs: "honoured",
  echo: "honoured",
  stop: "honoured",
  temperature: "honoured",
  top_p: "honoured",
  presence_penalty: "honoured",
  frequency_penalty: "honoured",
  logit_bias: "honoured",
  seed: "honoured",
  top_k: "honoured",
  min_p: "honoured",
  repetition_penalty: "honoured",
  ignore_eos: "honoured",
  user: "ignored",
  best_of: { refused: "Ask for n answers and choose", unless: ["1"] },
} as const satisfies Readonly<Record<string, ParameterRule>>;

/** Where a request says nothing: OpenAI's reference says 16; an editor that fills a gap wants a few lines. */
const defaultMaxTokens = { text: 16, gap: 256 };

export function completionRoutes(context: ApiContext): Route[] {
  // "/completions" without a version is llama-server's.
  return ["/v1/completions", "/beta/completions", "/beta/v1/completions"].map((path) => ({
    method: "POST",
    path,
    scope: "infer",
    errors: "openai",
    handle: (call, services) => answerCompletion(call, services, context),
  }));
}

async function answerCompletion(call: Call, services: Services, context: ApiContext): Promise<void> {
  const { value: body, json } = await readBody(completionRequest, call.body);
  const model = servedModel(body.model, services, context);
  refuseUnsupported(json, completionParameters);
  const head = { ...answerHead("cmpl", model, call, services), object: "text_completion" as const };
  const prompts = await completionPrompts(body, services.requireInfo(), services.tokenizer);
  const jobs = prompts.flatMap((prompt) => promptJobs(prompt, body, services, context));
  const choices = jobs.map((_, index) => {
    const prompt = prompts[Math.floor(index / (body.n ?? 1))]!;
    return new CompletionChoice(index, prompt, body, services.tokenizer);
  });
  if (body.stream) {
    await streamCompletion(call, services, { head, jobs, choices, body });
    return;
  }
  const usage = await runAnswers(call, services, jobs, {
    promptLogprobs: (index, logprobs) => choices[index]!.scorePrompt(logprobs),
    deltas: (index, deltas) => choices[index]!.add(deltas),
    end: (index, { finish }) => choices[index]!.finish(finish),
  });
  call.json(200, { ...head, choices: choices.map((choice) => choice.whole()), usage: openAiUsage(told(usage, body)) });
}

function promptJobs(
  { tokenIds }: CompletionPrompt,
  body: CompletionBody,
  services: Services,
  { llama }: ApiContext,
): AnswerJob[] {
  const info = services.requireInfo();
  const asked =
    body.max_tokens ?? info.defaults.maxTokens ?? (body.suffix ? defaultMaxTokens.gap : defaultMaxTokens.text);
  const sampling = readSampling(body);
  const { temperature, topP } = info.defaults;
  const job = {
    tokenIds,
    plan: {
      parse: undefined,
      stop: body.stop === undefined ? [] : [body.stop].flat(),
      stopTokenIds: stopTokens(info, { ignoreEos: body.ignore_eos ?? llama.ignoreEos }),
      toolNames: new Set<string>(),
      maxCalls: 0,
      opened: [],
    },
    // An answer of no tokens (to score a prompt) costs one all the same: an engine gives at least that.
    maxTokens: fitContext(tokenIds.length, Math.max(1, asked), info.contextLength, "openai"),
    logprobs: body.logprobs,
    promptLogprobs: body.echo ? body.logprobs : undefined,
    beginsWith: undefined,
  };
  const defaults = { ...(temperature === undefined ? {} : { temperature }), ...(topP === undefined ? {} : { topP }) };
  return repeatJob(job, { ...defaults, ...sampling }, info, body.n ?? 1);
}

/** The token that nobody asked for is not told. */
function told(usage: AnswerUsage, body: CompletionBody): AnswerUsage {
  return body.max_tokens === 0 ? { ...usage, generatedTokens: 0 } : usage;
}

interface Streamed {
  readonly head: Omit<CompletionChunk, "choices" | "usage">;
  readonly jobs: readonly AnswerJob[];
  readonly choices: readonly CompletionChoice[];
  readonly body: CompletionBody;
}

async function streamCompletion(
  call: Call,
  services: Services,
  { head, jobs, choices, body }: Streamed,
): Promise<void> {
  const stream = new AnswerStream(call);
  const send = (choice: CompletionChunk["choices"][number] | undefined) => {
    if (choice !== undefined) stream.send({ ...head, choices: [choice] });
  };
  const gatherer = new DeltaGatherer(stream, (index, deltas) => {
    choices[index]!.add(deltas);
    send(choices[index]!.part());
  });
  const answer = async () => {
    const usage = await runAnswers(call, services, jobs, {
      promptLogprobs: (index: number, logprobs: readonly TokenLogprob[]) => choices[index]!.scorePrompt(logprobs),
      deltas: (index, deltas) => gatherer.push(index, deltas),
      end(index, { finish }) {
        gatherer.flush();
        choices[index]!.finish(finish);
        send(choices[index]!.part());
      },
    });
    if (body.stream_options?.include_usage) {
      stream.send({ ...head, choices: [], usage: openAiUsage(told(usage, body)) });
    }
    stream.sendDone();
  };
  await stream.run(answer, ({ code, message }) => {
    stream.send({ error: { message, type: "server_error", param: null, code } });
  });
}
