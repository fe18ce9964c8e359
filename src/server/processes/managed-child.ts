/**
 * A child process that is kept alive: started again when it ends, later each time it ends early; killed when it is silent for too
 * long or when what it tells of itself does not change.
 */
import { type ChildProcess, fork } from "node:child_process";
import { fileURLToPath } from "node:url";
import type { FreeholdError } from "../../errors.ts";
import { type FromChild, receivedError, type ToChild } from "./supervisor-messages.ts";

export interface ManagedChildParts {
  readonly name: string;
  readonly module: string;
  readonly execArgv: readonly string[];
  readonly silenceMs: number;
  /** Sent to each new child, one after the other; handles go along. */
  start(): readonly { readonly message: ToChild; readonly handle?: unknown }[];
  onMessage(message: FromChild): void;
  /** It could not even start once. */
  onFatal(error: FreeholdError): void;
  onNote(text: string): void;
}

const firstBackoffMs = 50;
const mostBackoffMs = 10_000;

export class ManagedChild {
  readonly #parts: ManagedChildParts;
  #child: ChildProcess | undefined;
  #heardMs = 0;
  #backoffMs = firstBackoffMs;
  /** This child, and any child so far. */
  #isReady = false;
  #wasReady = false;
  #isStopping = false;
  #restart: NodeJS.Timeout | undefined;
  readonly #exited = Promise.withResolvers<void>();
  restarts = 0;

  constructor(parts: ManagedChildParts) {
    this.#parts = parts;
    this.#start();
  }

  get pid(): number | undefined {
    return this.#child?.pid;
  }

  send(message: ToChild): void {
    if (this.#child?.connected) this.#child.send(message);
  }

  /** Called now and then: kills a child that says nothing. */
  watch(): void {
    if (this.#child !== undefined && performance.now() - this.#heardMs > this.#parts.silenceMs) this.kill("was silent");
  }

  kill(why: string): void {
    if (this.#child === undefined) return;
    this.#parts.onNote(`The ${this.#parts.name} ${why} and is killed`);
    this.#child.kill("SIGKILL");
  }

  /** Asks it to end and waits; kills it after the limit. */
  async stop(limitMs: number, graceMs: number): Promise<void> {
    this.#isStopping = true;
    clearTimeout(this.#restart);
    if (this.#child === undefined) return;
    this.send({ type: "stop", limitMs });
    const timer = setTimeout(() => this.kill("did not stop in time"), limitMs + graceMs);
    await this.#exited.promise;
    clearTimeout(timer);
  }

  #start(): void {
    const { module, execArgv } = this.#parts;
    const child = fork(fileURLToPath(module), {
      execArgv: [...execArgv],
      stdio: ["ignore", "inherit", "inherit", "ipc"],
    });
    this.#child = child;
    this.#isReady = false;
    this.#heardMs = performance.now();
    // Handles of the operating system, as Node's own cluster module passes them; the types know sockets and servers only.
    for (const { message, handle } of this.#parts.start())
      child.send(message, handle as Parameters<ChildProcess["send"]>[1]);
    child.on("message", (told: FromChild) => this.#hear(told));
    child.on("error", () => undefined);
    child.on("exit", (code, signal) => this.#ended(signal ?? `status ${code}`));
  }

  #hear(message: FromChild): void {
    this.#heardMs = performance.now();
    if (message.type === "ready") {
      this.#isReady = true;
      this.#wasReady = true;
    }
    if (message.type === "failed") this.#failed(receivedError(message.error));
    this.#parts.onMessage(message);
  }

  /** What fails at the first start fails at the second; later the cause may pass. */
  #failed(error: FreeholdError): void {
    if (!this.#wasReady) {
      this.#isStopping = true;
      this.#parts.onFatal(error);
    } else this.#parts.onNote(`The ${this.#parts.name} failed: ${error.message}`);
    this.#child?.kill("SIGKILL");
  }

  #ended(how: string): void {
    this.#child = undefined;
    if (this.#isStopping) {
      this.#exited.resolve();
      return;
    }
    // One that was ready did not fail at its start: the next gets the same chance at once.
    if (this.#isReady) this.#backoffMs = firstBackoffMs;
    this.#parts.onNote(`The ${this.#parts.name} ended with ${how}; it is started again in ${this.#backoffMs} ms`);
    this.restarts++;
    this.#restart = setTimeout(() => this.#start(), this.#backoffMs);
    this.#backoffMs = Math.min(mostBackoffMs, this.#backoffMs * 2);
  }
}
