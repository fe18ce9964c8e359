/** Work in steps, all at once: for callers that nothing waits beside. Others pause between them (engine/pacer.ts). */
export function finishSteps<Result>(steps: Iterator<undefined, Result>): Result {
  let step = steps.next();
  while (!step.done) step = steps.next();
  return step.value;
}
