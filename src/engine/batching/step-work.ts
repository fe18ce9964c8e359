/** What a step computes for each of its requests. */
import type { Append, ModelRunner } from "../model-runner.ts";
import type { Answer } from "./answer.ts";
import { isFatal } from "./failures.ts";

/** A request's part in a step. */
export interface Work {
  readonly answer: Answer;
  readonly append: Append;
  readonly draft: readonly number[];
  readonly remember: boolean;
}

export type Result = { readonly rows: readonly Float32Array[] } | { readonly error: unknown };

/** One step for all. If it fails, each request by itself: the one that makes steps fail fails alone. */
export async function computeStep(
  runner: ModelRunner,
  work: readonly Work[],
  signal: AbortSignal,
): Promise<Result[] | "stopped"> {
  try {
    const appends = work.map(({ append }) => append);
    const rows = await runner.step(appends, signal);
    return rows.map((ofOne) => ({ rows: ofOne }));
  } catch (error) {
    if (signal.aborted && error === signal.reason) return "stopped";
    if (isFatal(error) || work.length === 1) return work.map(() => ({ error }));
  }
  const results: Result[] = [];
  for (const { append } of work) results.push(await computeAlone(runner, append));
  return results;
}

async function computeAlone(runner: ModelRunner, append: Append): Promise<Result> {
  try {
    const [rows] = await runner.step([append]);
    return { rows: rows! };
  } catch (error) {
    return { error };
  }
}
