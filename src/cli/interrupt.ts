/**
 * Ctrl-C. A command runs with a signal that the first SIGINT (or SIGTERM) aborts; work stops between two steps of the model,
 * which take a fraction of a second. A second Ctrl-C ends the process at once.
 */
import { exitStatus } from "./terminal.ts";

export interface Interruption extends Disposable {
  readonly signal: AbortSignal;
}

export function interruptible(): Interruption {
  const controller = new AbortController();
  const onSignal = () => {
    if (controller.signal.aborted) process.exit(exitStatus.interrupted);
    controller.abort();
  };
  process.on("SIGINT", onSignal);
  process.on("SIGTERM", onSignal);
  return {
    signal: controller.signal,
    [Symbol.dispose]() {
      process.off("SIGINT", onSignal);
      process.off("SIGTERM", onSignal);
    },
  };
}
