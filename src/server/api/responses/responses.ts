/** POST /v1/responses, and the responses that are kept: GET, DELETE and their input items. */
import { fromJson, toJson } from "../../../chat/read-json.ts";
import { type Json, JsonObject } from "../../../json/parse-json.ts";
import type { AnswerResult } from "../../generation/answer-reader.ts";
import { encodeChat } from "../../generation/encode-chat.ts";
import { prepareChat } from "../../generation/prepare-chat.ts";
import { rememberAnswer } from "../../generation/restore-history.ts";
import { type AnswerUsage, runAnswers } from "../../generation/run-answers.ts";
import { HttpError } from "../../http-error.ts";
import type { Call, Route, Services } from "../../route.ts";
import { AnswerStream, DeltaGatherer } from "../answer-stream.ts";
import type { ApiContext } from "../api-context.ts";
import { TimingClock } from "../llama/llama-timings.ts";
import { type RequestBody, readBody } from "../request-body.ts";
import {
  type ResponseObject,
  type ResponsesBody,
  type ResponsesEvent,
  responsesRequest,
} from "../schemas/responses.ts";
import { servedModel } from "../served-model.ts";
import { type EarlierItems, readResponsesBody } from "./read-responses-body.ts";
import { ResponsesEncoder } from "./responses-encoder.ts";
import { storedResponseRoutes } from "./stored-responses.ts";

export function responsesRoutes(context: ApiContext): Route[] {
  const route = { scope: "infer", errors: "openai" } as const;
  return ["/v1/responses", "/responses"].flatMap((path): Route[] => [
    { ...route, method: "POST", path, handle: (call, services) => answerResponse(call, services, context) },
    {
      ...route,
      method: "POST",
      path: `${path}/input_tokens`,
      handle: async (call, services) => countTokens(call, services, context),
    },
    ...storedResponseRoutes(path, context.responses),
  ]);
}

/** How long the prompt of such a request is. */
async function countTokens(call: Call, services: Services, context: ApiContext): Promise<void> {
  const body = await readBody(responsesRequest, call.body);
  const { chat } = await readResponsesBody(body, earlierOf(body.value, call, context), services, context.thinking);
  const { tokenIds } = await encodeChat(chat, { namespace: call.namespace, services, memory: context.memory });
  call.json(200, { object: "response.input_tokens", input_tokens: tokenIds.length });
}

async function answerResponse(call: Call, services: Services, context: ApiContext): Promise<void> {
  const body = await readBody(responsesRequest, call.body);
  const { value } = body;
  const model = servedModel(value.model, services, context);
  const earlier = earlierOf(value, call, context);
  const { chat, options, tools, input } = await readResponsesBody(body, earlier, services, context.thinking);
  const { memory } = context;
  const prepared = await prepareChat(chat, options, { call, services, memory, errors: "openai" });
  const encoder = new ResponsesEncoder(baseResponse(body, model, call, services), {
    requestId: call.requestId,
    tools,
    showsSummary: value.reasoning?.summary !== undefined && value.reasoning.summary !== null,
    sealsReasoning: value.include?.includes("reasoning.encrypted_content") ?? false,
  });
  const finish: Finish = (result, usage, timings) => {
    rememberAnswer(prepared, result, { namespace: call.namespace, services, memory });
    const { events, response } = encoder.end(result, usage, services.now(), timings);
    if (value.store ?? true) keep(call, context, response, input, value.previous_response_id);
    return events;
  };
  if (value.stream) await streamResponse(call, services, prepared.jobs, encoder, finish, value);
  else call.json(200, await wholeResponse(call, services, prepared.jobs, encoder, finish));
}

function earlierOf(value: ResponsesBody, call: Call, context: ApiContext): EarlierItems {
  return {
    history: earlierItems(value.previous_response_id, call, context),
    item: (id) => context.responses.item(call.namespace, id),
  };
}

function earlierItems(id: string | undefined, call: Call, { responses }: ApiContext): readonly Json[] {
  if (id === undefined) return [];
  const items = responses.history(call.namespace, id);
  if (items !== undefined) return items;
  throw new HttpError(400, `Previous response with id ${JSON.stringify(id.slice(0, 80))} not found`, {
    code: "previous_response_not_found",
    where: "previous_response_id",
    hint: "Responses are kept in memory for a while; send the items instead",
  });
}

function keep(
  call: Call,
  { responses }: ApiContext,
  response: ResponseObject,
  input: readonly Json[],
  previousId: string | undefined,
): void {
  const output = response.output.map((item) => toJson(item, "output"));
  const size = JSON.stringify(response).length + charactersOf(input);
  responses.put(call.namespace, { response, input, output, previousId }, size);
}

/** About as many as its text has, without writing the text of an image. */
function charactersOf(value: Json): number {
  if (typeof value === "string") return value.length + 2;
  if (value instanceof JsonObject)
    return value.entries.reduce((sum, [key, item]) => sum + key.length + 4 + charactersOf(item), 2);
  if (Array.isArray(value))
    return (value as readonly Json[]).reduce<number>((sum, item) => sum + charactersOf(item) + 1, 2);
  return 5;
}

type Finish = (result: AnswerResult, usage: AnswerUsage, timings?: Record<string, number>) => ResponsesEvent[];
type Jobs = Parameters<typeof runAnswers>[2];

async function wholeResponse(
  call: Call,
  services: Services,
  jobs: Jobs,
  encoder: ResponsesEncoder,
  finish: Finish,
): Promise<ResponseObject> {
  const results: AnswerResult[] = [];
  const usage = await runAnswers(call, services, jobs, {
    deltas(_, deltas) {
      for (const delta of deltas) encoder.delta(delta);
    },
    end(_, result) {
      results.push(result);
    },
  });
  const last = finish(results[0]!, usage).at(-1)!;
  return (last as Extract<ResponsesEvent, { response: ResponseObject }>).response; // the last event holds it
}

async function streamResponse(
  call: Call,
  services: Services,
  jobs: Jobs,
  encoder: ResponsesEncoder,
  finish: Finish,
  body: ResponsesBody,
): Promise<void> {
  const stream = new AnswerStream(call);
  const send = (events: readonly ResponsesEvent[]) => {
    for (const event of events) stream.send(event, event.type);
  };
  let isStarted = false;
  const start = () => {
    if (!isStarted) send(encoder.start());
    isStarted = true;
  };
  const clock = new TimingClock(jobs[0]!.tokenIds.length, () => performance.now());
  const timings = () => (body.timings_per_token ? { ...clock.timings } : undefined);
  const sendProgress = () => {
    const progress = body.return_progress ? clock.newProgress() : undefined;
    if (progress !== undefined) send(encoder.progress(progress));
  };
  const gatherer = new DeltaGatherer(stream, (_, deltas) => {
    for (const delta of deltas) send(encoder.delta(delta, timings()));
  });
  const answer = async () => {
    const results: AnswerResult[] = [];
    const usage = await runAnswers(call, services, jobs, {
      started(_, cachedTokens) {
        start();
        clock.started(cachedTokens);
        sendProgress();
      },
      prefill(_, done) {
        clock.prefilled(done);
        sendProgress();
      },
      token() {
        clock.token();
        sendProgress();
        return undefined;
      },
      deltas(index, deltas) {
        start();
        gatherer.push(index, deltas);
      },
      end(_, result) {
        start();
        gatherer.flush();
        results.push(result);
      },
    });
    send(finish(results[0]!, usage, timings()));
  };
  await stream.run(answer, ({ message }) => send(encoder.fail(message)));
}

/** The response before anything of its output is known. */
function baseResponse(
  { value, json }: RequestBody<ResponsesBody>,
  model: string,
  call: Call,
  services: Services,
): ResponseObject {
  return {
    id: `resp_${call.requestId}`,
    object: "response",
    created_at: Math.floor(services.now()),
    completed_at: null,
    status: "in_progress",
    background: false,
    error: null,
    incomplete_details: null,
    instructions: value.instructions ?? null,
    max_output_tokens: value.max_output_tokens ?? null,
    max_tool_calls: null,
    model,
    output: [],
    output_text: "",
    parallel_tool_calls: value.parallel_tool_calls ?? true,
    previous_response_id: value.previous_response_id ?? null,
    prompt_cache_key: value.prompt_cache_key ?? null,
    reasoning: { effort: value.reasoning?.effort ?? null, summary: value.reasoning?.summary ?? null },
    safety_identifier: value.safety_identifier ?? null,
    service_tier: "default",
    store: value.store ?? true,
    temperature: value.temperature ?? null,
    text: { format: value.text?.format ?? { type: "text" } },
    tool_choice: value.tool_choice ?? "auto",
    tools: fromJson(json.get("tools") ?? []) as unknown[], // the schema has said: a list
    top_logprobs: value.top_logprobs ?? 0,
    top_p: value.top_p ?? null,
    truncation: value.truncation ?? "disabled",
    usage: null,
    user: value.user ?? null,
    metadata: value.metadata ?? {},
  };
}
