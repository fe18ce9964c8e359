/** What an engine did since its start: the requests that ended, and what those that run have so far. */
import type { Model } from "../model.ts";
import type { Answer } from "./answer.ts";
import { type EngramCounters, noRequests, type RequestTotals } from "./engine-port.ts";

export class EngineTotals {
  #ended = noRequests;

  ended(answer: Answer): void {
    this.#ended = withAnswer(this.#ended, answer);
  }

  with(running: Iterable<Answer>): RequestTotals {
    return [...running].reduce(withAnswer, this.#ended);
  }
}

/** What this engine did for a request; one that never started counts for nothing. */
function withAnswer(totals: RequestTotals, answer: Answer): RequestTotals {
  if (!answer.hasStarted) return totals;
  const { promptTokens, cachedTokens, generatedTokens, draftedTokens, acceptedTokens } = answer.usage(0);
  return {
    promptTokens: totals.promptTokens + promptTokens,
    cachedTokens: totals.cachedTokens + cachedTokens,
    generatedTokens: totals.generatedTokens + generatedTokens - answer.request.generated.length,
    drafts: totals.drafts + answer.draftCount,
    draftedTokens: totals.draftedTokens + draftedTokens,
    acceptedTokens: totals.acceptedTokens + acceptedTokens,
  };
}

/** Undefined for a model without an n-gram memory. */
export function engramCounters({ runner: { engram } }: Model): EngramCounters | undefined {
  if (engram === undefined) return undefined;
  const { lookups, hits, rowsRead, batches, readBytes } = engram.counters;
  return { lookups, hits, rowsRead, batches, readBytes, memoryBytes: engram.memoryBytes };
}
