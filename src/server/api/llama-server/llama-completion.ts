/** POST /completion and /infill, and GET /props, in llama-server's own shapes: llama.vim and llama.vscode speak them. */
import { encodePrompt } from "../../../chat/prompt.ts";
import { renderFillInMiddle } from "../../../chat/render-prompt.ts";
import { withoutUndefined } from "../../../engine/without-undefined.ts";
import { RequestError } from "../../../errors.ts";
import type { AnswerDelta, AnswerResult } from "../../generation/answer-reader.ts";
import { fitContext } from "../../generation/fit-context.ts";
import { repeatJob, stopTokens } from "../../generation/prepare-chat.ts";
import { type AnswerJob, type AnswerUsage, runAnswers } from "../../generation/run-answers.ts";
import type { Call, Route, Services } from "../../route.ts";
import { AnswerStream, DeltaGatherer } from "../answer-stream.ts";
import { type ParameterRule, readBody, refuseUnsupported } from "../request-body.ts";
import {
  type InfillBody,
  infillRequest,
  type LlamaCompletion,
  type LlamaEvent,
  type LlamaPrompt,
  type LlamaSampling,
  llamaCompletionRequest,
} from "../schemas/llama-server.ts";

export function llamaServerRoutes(): Route[] {
  const route = { method: "POST", scope: "infer", errors: "openai" } as const;
  return [
    { ...route, path: "/completion", handle: (call, services) => answerCompletion(call, services) },
    { ...route, path: "/infill", handle: (call, services) => answerInfill(call, services) },
    {
      method: "GET",
      path: "/props",
      scope: "infer",
      errors: "openai",
      handle: async (call, services) => tellProps(call, services),
    },
  ];
}

const refused: Readonly<Record<string, ParameterRule>> = {
  grammar: { refused: "Grammars are not offered yet", unless: ['""'] },
  json_schema: { refused: "Answers that follow a schema are not offered yet", unless: ["{}"] },
  lora: { refused: "Adapters are not offered", unless: ["[]"] },
  return_tokens: { refused: "Answers are told as text", unless: ["false"] },
  n_probs: { refused: "Use logprobs of /v1/completions", unless: ["0"] },
  logit_bias: { refused: "Use logit_bias of /v1/completions", unless: ["[]", "{}"] },
};

async function answerCompletion(call: Call, services: Services): Promise<void> {
  const { value, json } = readBody(llamaCompletionRequest, call.body);
  refuseUnsupported(json, refused);
  await answer(call, services, promptTokens(value.prompt, services), value);
}

async function answerInfill(call: Call, services: Services): Promise<void> {
  const { value, json } = readBody(infillRequest, call.body);
  refuseUnsupported(json, refused);
  await answer(call, services, infillTokens(value, services), value);
}

/** Texts in which special tokens may be spelled, token ids, or both by turns. */
function promptTokens(prompt: LlamaPrompt, services: Services): number[] {
  const { addsBeginOfSequence, bosTokenId, vocabSize } = services.requireInfo();
  const parts = [prompt].flat();
  const ids = parts.flatMap((part, i) => {
    if (typeof part === "string") return services.tokenizer.encode(part, { special: true });
    if (part < vocabSize) return [part];
    throw new RequestError(`No token has the id ${part}`, { code: "request", where: `prompt[${i}]` });
  });
  const begins = addsBeginOfSequence && typeof parts[0] === "string" ? [bosTokenId] : [];
  return ids.length + begins.length === 0 ? [bosTokenId] : [...begins, ...ids];
}

/** Other files stand before the prefix, as text; the beginning of the gap stands behind everything. */
function infillTokens(body: InfillBody, { tokenizer }: Services): number[] {
  const extra = (body.input_extra ?? []).map(({ filename, text }) => `${filename ?? ""}\n${text}\n`).join("");
  const gap = renderFillInMiddle(extra + (body.input_prefix ?? ""), body.input_suffix ?? "");
  return [...encodePrompt(gap, tokenizer), ...tokenizer.encode(body.prompt ?? "")];
}

async function answer(call: Call, services: Services, tokenIds: readonly number[], body: LlamaSampling): Promise<void> {
  const [job] = planJob(tokenIds, body, services) as [AnswerJob];
  if (body.stream) {
    await stream(call, services, job);
    return;
  }
  let result: AnswerResult | undefined;
  const usage = await runAnswers(call, services, [job], {
    deltas() {},
    end(_, ended) {
      result = ended;
    },
  });
  call.json(200, ending(result!, usage, services, result!.content));
}

function planJob(tokenIds: readonly number[], body: LlamaSampling, services: Services): AnswerJob[] {
  const info = services.requireInfo();
  const { n_predict: asked = -1 } = body;
  const job = {
    tokenIds,
    plan: {
      parse: undefined,
      stop: body.stop === undefined ? [] : [body.stop].flat(),
      stopTokenIds: stopTokens(info, { ignoreEos: body.ignore_eos ?? false }),
      toolNames: new Set<string>(),
      maxCalls: 0,
      opened: [],
    },
    maxTokens: fitContext(
      tokenIds.length,
      asked < 0 ? info.contextLength : Math.max(1, asked),
      info.contextLength,
      "openai",
    ),
    logprobs: undefined,
    promptLogprobs: undefined,
    beginsWith: undefined,
  };
  const sampling = withoutUndefined({
    temperature: body.temperature ?? info.defaults.temperature,
    topP: body.top_p ?? info.defaults.topP,
    topK: body.top_k,
    minP: body.min_p,
    repetitionPenalty: body.repeat_penalty,
    presencePenalty: body.presence_penalty,
    frequencyPenalty: body.frequency_penalty,
    seed: body.seed === -1 ? undefined : body.seed,
  });
  return repeatJob(job, sampling, info, 1);
}

async function stream(call: Call, services: Services, job: AnswerJob): Promise<void> {
  const events = new AnswerStream(call);
  let told = 0;
  const part = (deltas: readonly AnswerDelta[]): LlamaEvent => {
    const content = deltas.map((delta) => (delta.type === "content" ? delta.text : "")).join("");
    told++;
    return {
      index: 0,
      id_slot: 0,
      content,
      tokens: [],
      stop: false,
      tokens_predicted: told,
      tokens_evaluated: job.tokenIds.length,
    };
  };
  const gatherer = new DeltaGatherer(events, (_, deltas) => events.send(part(deltas)));
  const run = async () => {
    let result: AnswerResult | undefined;
    const usage = await runAnswers(call, services, [job], {
      deltas: (index, deltas) => gatherer.push(index, deltas),
      end(_, ended) {
        gatherer.flush();
        result = ended;
      },
    });
    events.send(ending(result!, usage, services, ""));
  };
  await events.run(run, ({ code, message }) => events.send({ error: { code, message, type: "server_error" } }));
}

function ending(
  { finish, stopString }: AnswerResult,
  usage: AnswerUsage,
  services: Services,
  content: string,
): LlamaCompletion {
  return {
    index: 0,
    id_slot: 0,
    content,
    tokens: [],
    stop: true,
    model: services.requireInfo().name,
    tokens_predicted: usage.generatedTokens,
    tokens_evaluated: usage.promptTokens,
    tokens_cached: usage.cachedTokens,
    truncated: false,
    stop_type: stopString !== undefined ? "word" : finish === "length" ? "limit" : "eos",
    stopping_word: stopString ?? "",
  };
}

function tellProps(call: Call, services: Services): void {
  const { name, contextLength } = services.requireInfo();
  call.json(200, {
    default_generation_settings: { n_ctx: contextLength },
    total_slots: 1,
    model_alias: name,
    model_path: name,
    chat_template: "", // prompts are built by code: see /apply-template
    modalities: { vision: false, audio: false },
    build_info: `freehold ${services.version}`,
  });
}
