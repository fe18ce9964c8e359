/**
 * Ctrl-C. A command runs with a signal that the first SIGINT (or SIGTERM, or SIGHUP, when its terminal is closed) aborts; work stops
 * within a layer of the model's running step, or at the next read of a file. A second one ends the process at once.
 */
import { exitStatus } from "./terminal.ts";

export interface Interruption extends Disposable {
  readonly signal: AbortSignal;
}

const signals = ["SIGINT", "SIGTERM", "SIGHUP"] as const;

export function interruptible(): Interruption {
  const controller = new AbortController();
  const onSignal = () => {
    if (controller.signal.aborted) process.exit(exitStatus.interrupted);
    controller.abort();
  };
  for (const name of signals) process.on(name, onSignal);
  return {
    signal: controller.signal,
    [Symbol.dispose]() {
      for (const name of signals) process.off(name, onSignal);
    },
  };
}
