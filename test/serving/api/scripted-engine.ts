/**
 * An engine without a model: answers are texts from a script, turned into tokens by the tokenizer of the embedded model and sent
 * as an engine sends them. Deterministic, and as strict as an engine: it keeps to limits, stop tokens and demanded beginnings.
 */
import { readFileSync } from "node:fs";
import { join } from "node:path";
import type {
  EngineEvent,
  EngineFailure,
  EngineInfo,
  EnginePort,
  EngineRequest,
  EngineStatus,
  TokenLogprob,
} from "../../../src/engine/batching/engine-port.ts";
import { embeddedModel } from "../../../src/engine/load-model.ts";
import { emptyStatus } from "../../../src/server/processes/engine-messages.ts";
import { Tokenizer } from "../../../src/tokenizer/tokenizer.ts";

export const tokenizer = Tokenizer.fromJson(JSON.parse(readFileSync(join(embeddedModel, "tokenizer.json"), "utf8")));

export const engineInfo: EngineInfo = {
  name: "freehold-test",
  vocabSize: tokenizer.vocabSize,
  contextLength: 100_000,
  bosTokenId: 0,
  eosTokenIds: [1],
  addsBeginOfSequence: true,
  defaults: {},
  device: "cpu",
  kernels: "none",
  threads: 1,
  parameters: 0,
  loadSeconds: 0,
};

export interface Script {
  /** Model output with its markers spelled; an end-of-sequence token is added unless `isCut`. */
  readonly text: string;
  readonly isCut?: boolean;
  readonly cachedTokens?: number;
  /** Fails after so many tokens. */
  readonly failure?: EngineFailure & { readonly afterTokens: number };
  /** Goes on with this text again and again until it is cancelled or full. */
  readonly isEndless?: boolean;
}

type Answer = Script | string | ((request: EngineRequest) => Script | string);

export class ScriptedEngine implements EnginePort {
  readonly info: EngineInfo | undefined;
  readonly requests: EngineRequest[] = [];
  readonly cancelled: string[] = [];
  readonly #answers: Answer[];
  readonly #tokensPerEvent: (event: number) => number;
  readonly #running = new Map<string, () => void>();

  /** Each request takes the next answer; the last one stays. */
  constructor(answers: readonly Answer[], tokensPerEvent: (event: number) => number = () => 1, info = engineInfo) {
    this.#answers = [...answers];
    this.#tokensPerEvent = tokensPerEvent;
    this.info = info;
  }

  get running(): number {
    return this.#running.size;
  }

  submit(request: EngineRequest, listener: (event: EngineEvent) => void): void {
    this.requests.push(request);
    const answer = this.#answers.length > 1 ? this.#answers.shift()! : this.#answers[0]!;
    const given = typeof answer === "function" ? answer(request) : answer;
    const script: Script = typeof given === "string" ? { text: given } : given;
    this.#run(request, script, listener).catch((error: unknown) => {
      listener({ type: "error", error: { code: "engine_error", message: String(error), isRetryable: false } });
    });
  }

  cancel(id: string): void {
    if (!this.#running.has(id)) return;
    this.cancelled.push(id);
    this.#running.get(id)!();
  }

  get status(): EngineStatus {
    return emptyStatus("ready", 1);
  }

  async #run(request: EngineRequest, script: Script, listener: (event: EngineEvent) => void): Promise<void> {
    let isCancelled = false;
    this.#running.set(request.id, () => {
      isCancelled = true;
    });
    await pause();
    const { ids, finish } = outputOf(request, script);
    const cachedTokens = script.cachedTokens ?? 0;
    if (!isCancelled && script.failure?.afterTokens !== 0) listener({ type: "started", cachedTokens });
    if (request.promptLogprobs !== undefined) {
      listener({
        type: "promptLogprobs",
        logprobs: request.tokenIds.slice(1).map((id) => logprobOf(id, request.promptLogprobs!)),
      });
    }
    let sent = 0;
    for (let event = 0; sent < ids.length && !isCancelled; event++) {
      if (script.failure !== undefined && sent >= script.failure.afterTokens) break;
      const part = ids.slice(sent, sent + this.#tokensPerEvent(event));
      sent += part.length;
      const { logprobs } = request;
      listener({
        type: "tokens",
        ids: part,
        ...(logprobs === undefined ? {} : { logprobs: part.map((id) => logprobOf(id, logprobs)) }),
      });
      await pause();
    }
    this.#running.delete(request.id);
    if (script.failure !== undefined && !isCancelled) {
      const { afterTokens: _, ...error } = script.failure;
      listener({ type: "error", error });
      return;
    }
    listener({
      type: "end",
      finish: isCancelled ? "cancelled" : finish,
      usage: {
        promptTokens: request.tokenIds.length,
        cachedTokens,
        generatedTokens: sent,
        draftedTokens: 0,
        acceptedTokens: 0,
        seconds: { queue: 0, prefill: 0, decode: 0 },
      },
    });
  }
}

function pause(): Promise<void> {
  return new Promise((resolve) => setImmediate(resolve));
}

function outputOf(request: EngineRequest, script: Script): { ids: readonly number[]; finish: "stop" | "length" } {
  const text = script.isEndless ? script.text.repeat(Math.ceil(request.maxTokens / 2) + 1) : script.text;
  const all = tokenizer.encode(text, { special: true });
  if (!script.isCut && !script.isEndless) all.push(1);
  const end = all.findIndex((id) => request.stopTokenIds.includes(id));
  const stopped = end < 0 ? all : all.slice(0, end + 1);
  const ids = stopped.slice(0, request.maxTokens);
  const { beginsWith } = request;
  if (beginsWith !== undefined && !beginsWith.some((start) => isPrefix(start, ids)))
    throw new Error(`The script does not begin with what was demanded: ${tokenizer.decode(beginsWith[0]!)}`);
  return { ids, finish: end >= 0 && ids.length === stopped.length ? "stop" : "length" };
}

function isPrefix(start: readonly number[], ids: readonly number[]): boolean {
  const length = Math.min(start.length, ids.length);
  return start.slice(0, length).every((id, i) => ids[i] === id);
}

/** A log probability that depends on the token alone. */
export function logprobOf(id: number, alternatives: number): TokenLogprob {
  const top = Array.from({ length: alternatives }, (_, i) => ({ id: (id + i) % 4000, logprob: -0.5 - i }));
  return { id, logprob: -0.5, top };
}
