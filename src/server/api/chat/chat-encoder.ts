/** One answer in the shape of Chat Completions: as a whole, and as chunks. */
import type { AnswerDelta, AnswerResult } from "../../generation/answer-reader.ts";
import type { AnswerUsage } from "../../generation/run-answers.ts";
import type { TokenText } from "../../generation/token-logprobs.ts";
import { openAiUsage } from "../openai-usage.ts";
import type { ChatChunk, ChatCompletion } from "../schemas/chat.ts";

export interface AnswerHead {
  readonly id: string;
  readonly created: number;
  readonly model: string;
  readonly system_fingerprint: string;
}

type Logprobs = ChatCompletion["choices"][number]["logprobs"];
type Delta = ChatChunk["choices"][number]["delta"];

export class ChatEncoder {
  readonly #head: AnswerHead;
  readonly #hasLogprobs: boolean;

  constructor(head: AnswerHead, hasLogprobs: boolean) {
    this.#head = head;
    this.#hasLogprobs = hasLogprobs;
  }

  /** The first chunk of a choice. That it has no text yet is said with null, as DeepSeek and llama-server do. */
  open(index: number): ChatChunk {
    return this.#chunk(index, { role: "assistant", content: null }, null, null);
  }

  delta(index: number, delta: AnswerDelta): ChatChunk {
    switch (delta.type) {
      case "reasoning":
        return this.#chunk(index, { reasoning_content: delta.text }, this.#logprobs([], delta.tokens ?? []), null);
      case "content":
        return this.#chunk(index, { content: delta.text }, this.#logprobs(delta.tokens ?? [], []), null);
      case "toolCall":
        return this.#callChunk(index, {
          index: delta.index,
          id: delta.id,
          type: "function",
          function: { name: delta.name, arguments: "" },
        });
      case "toolArguments":
        return this.#callChunk(index, { index: delta.index, function: { arguments: delta.text } });
      default:
        return delta satisfies never;
    }
  }

  close(index: number, { finish }: AnswerResult): ChatChunk {
    return this.#chunk(index, {}, null, finish);
  }

  /** The last chunk, where usage was asked for. */
  usage(usage: AnswerUsage): ChatChunk {
    return { ...this.#head, object: "chat.completion.chunk", choices: [], usage: openAiUsage(usage) };
  }

  /** How far the prompt of a choice is computed. */
  progress(index: number, prompt_progress: NonNullable<ChatChunk["prompt_progress"]>): ChatChunk {
    return { ...this.#chunk(index, {}, null, null), prompt_progress };
  }

  whole(results: readonly AnswerResult[], tokens: readonly ChoiceTokens[], usage: AnswerUsage): ChatCompletion {
    return {
      ...this.#head,
      object: "chat.completion",
      choices: results.map((result, index) => ({
        index,
        message: message(result),
        logprobs: this.#logprobs(tokens[index]!.content, tokens[index]!.reasoning),
        finish_reason: result.finish,
      })),
      usage: openAiUsage(usage),
    };
  }

  #callChunk(index: number, call: NonNullable<Delta["tool_calls"]>[number]): ChatChunk {
    return this.#chunk(index, { tool_calls: [call] }, null, null);
  }

  #chunk(index: number, delta: Delta, logprobs: Logprobs, finish: AnswerResult["finish"] | null): ChatChunk {
    return {
      ...this.#head,
      object: "chat.completion.chunk",
      choices: [{ index, delta, logprobs, finish_reason: finish }],
    };
  }

  /** DeepSeek has the tokens of the reasoning as well. */
  #logprobs(content: readonly TokenText[], reasoning: readonly TokenText[]): Logprobs {
    if (!this.#hasLogprobs) return null;
    return {
      content: content.map(tokenLogprob),
      refusal: null,
      ...(reasoning.length > 0 ? { reasoning_content: reasoning.map(tokenLogprob) } : {}),
    };
  }
}

/** The tokens of one choice, gathered for an answer that is not streamed. */
export interface ChoiceTokens {
  readonly content: TokenText[];
  readonly reasoning: TokenText[];
}

function message({ content, reasoning, calls }: AnswerResult): ChatCompletion["choices"][number]["message"] {
  return {
    role: "assistant",
    content: content === "" && calls.length > 0 ? null : content,
    refusal: null,
    ...(reasoning === "" ? {} : { reasoning_content: reasoning }),
    ...(calls.length === 0
      ? {}
      : {
          tool_calls: calls.map(({ id, name, arguments: text }) => ({
            id,
            type: "function" as const,
            function: { name, arguments: text },
          })),
        }),
  };
}

function tokenLogprob({ top, ...token }: TokenText) {
  return { ...plainLogprob(token), top_logprobs: top.map(plainLogprob) };
}

/** JSON has no minus infinity: OpenAI writes -9999 for what is impossible. */
export function finiteLogprob(logprob: number): number {
  return Math.max(logprob, -9999);
}

function plainLogprob({ token, logprob, bytes }: Omit<TokenText, "top">) {
  return { token, logprob: finiteLogprob(logprob), bytes: [...bytes] };
}
