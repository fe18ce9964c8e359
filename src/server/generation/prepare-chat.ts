/** From a conversation and its options to the requests that an engine gets: what all chat dialects have in common. */
import { randomInt } from "node:crypto";
import type { ChatRequest } from "../../chat/chat-request.ts";
import { toolsInForce } from "../../chat/check-request.ts";
import { resolveSampling } from "../../chat/sampling-defaults.ts";
import type { EngineInfo } from "../../engine/batching/engine-port.ts";
import type { SamplingOptions } from "../../engine/sampling/sampling-options.ts";
import type { Call, ErrorDialect, Services } from "../route.ts";
import type { ConversationMemory } from "./conversation-memory.ts";
import { encodeChat } from "./encode-chat.ts";
import { fitContext } from "./fit-context.ts";
import type { AnswerJob } from "./run-answers.ts";

/** What a request says about the answer; absent fields take the model's defaults. */
export interface AnswerOptions {
  readonly sampling?: SamplingOptions;
  readonly maxTokens?: number | undefined;
  /** Answers to the same prompt. */
  readonly choices?: number;
  readonly logprobs?: number | undefined;
  readonly maxCalls?: number;
  /** Go on after an end-of-sequence token. */
  readonly ignoreEos?: boolean;
}

export interface PreparedChat {
  readonly request: ChatRequest;
  readonly jobs: readonly AnswerJob[];
}

interface PrepareContext {
  readonly call: Call;
  readonly services: Services;
  readonly memory: ConversationMemory;
  readonly errors: ErrorDialect;
}

/** Throws a RequestError or an HttpError for what cannot be asked. */
export async function prepareChat(
  given: ChatRequest,
  options: AnswerOptions,
  { call, services, memory, errors }: PrepareContext,
): Promise<PreparedChat> {
  const info = services.requireInfo();
  const encoded = await encodeChat(given, { namespace: call.namespace, services, memory });
  const resolved = resolveSampling(
    {
      thinking: given.thinking,
      hasTools: toolsInForce(given).length > 0,
      isMaxEffort: given.effort === "max",
      temperature: options.sampling?.temperature ?? info.defaults.temperature,
      topP: options.sampling?.topP ?? info.defaults.topP,
      maxTokens: options.maxTokens ?? info.defaults.maxTokens,
    },
    services.dialect,
  );
  const { request, tokenIds, images, parse, toolNames, opened, beginsWith } = encoded;
  const job = {
    tokenIds,
    images,
    plan: {
      parse,
      stop: [],
      stopTokenIds: stopTokens(info, options),
      toolNames,
      maxCalls: options.maxCalls ?? Number.POSITIVE_INFINITY,
      opened,
    },
    maxTokens: fitContext(tokenIds.length, resolved.maxTokens, info.contextLength, errors),
    logprobs: options.logprobs,
    promptLogprobs: undefined,
    beginsWith,
  };
  const sampling = { ...options.sampling, temperature: resolved.temperature, topP: resolved.topP };
  return { request, jobs: repeatJob(job, sampling, info, options.choices ?? 1) };
}

/** One job a choice; each has a seed of its own, so that choices differ and a given seed repeats all of them. */
export function repeatJob(
  job: Omit<AnswerJob, "sampling" | "countsPrompt">,
  sampling: SamplingOptions,
  { defaults }: EngineInfo,
  choices: number,
): AnswerJob[] {
  const seed = sampling.seed ?? randomInt(2 ** 31);
  const withDefaults = { ...(defaults.topK === undefined ? {} : { topK: defaults.topK }), ...sampling };
  return Array.from({ length: choices }, (_, i) => ({
    ...job,
    sampling: { ...withDefaults, seed: seed + i },
    countsPrompt: i === 0,
  }));
}

export function stopTokens({ eosTokenIds }: EngineInfo, { ignoreEos }: AnswerOptions): ReadonlySet<number> {
  return new Set(ignoreEos ? [] : eosTokenIds);
}
