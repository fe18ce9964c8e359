/** Work that is written in steps, to its end. */

/** All at once: for callers that nothing waits beside. */
export function finishSteps<Result>(steps: Iterator<undefined, Result>): Result {
  let step = steps.next();
  while (!step.done) step = steps.next();
  return step.value;
}

/** With a pause between two steps, where something runs beside it (engine/pacer.ts); without one if none is given. */
export async function finishWithPauses<Result>(
  steps: Iterator<undefined, Result>,
  pause: (() => Promise<void>) | undefined,
): Promise<Result> {
  let step = steps.next();
  for (; !step.done; step = steps.next()) await pause?.();
  return step.value;
}
