/**
 * Ctrl-C. A command runs with a signal that the first SIGINT (or SIGTERM) aborts; work stops within a layer of the model's running
 * step, or at the next read of a file. A second Ctrl-C ends the process at once.
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
