/**
 * What every command writes with: results to stdout, progress and logs to stderr, errors in one form. `--json` puts one
 * document (or one a line) on stdout and nothing else there; `--quiet` keeps stderr silent but for errors.
 */
import { FreeholdError } from "../errors.ts";

/** Exit statuses that scripts may rely on. */
export const exitStatus = { done: 0, failed: 1, usage: 2, interrupted: 130 } as const;

export interface TerminalOptions {
  readonly json: boolean;
  readonly quiet: boolean;
}

export class Terminal {
  readonly json: boolean;
  readonly #quiet: boolean;
  #progressShown = false;
  /** Whether the cursor of stdout stands behind text, so that a message must begin with a line end. */
  #midLine = false;

  constructor({ json, quiet }: TerminalOptions) {
    this.json = json;
    this.#quiet = quiet;
  }

  /** Text of the result, as it comes. Resolves when a full pipe has taken it, so that a slow reader slows the writer. */
  async write(text: string): Promise<void> {
    if (text === "") return;
    this.clearProgress();
    this.#midLine = !text.endsWith("\n");
    if (!process.stdout.write(text)) await new Promise<void>((resolve) => process.stdout.once("drain", resolve));
  }

  async writeJson(value: unknown): Promise<void> {
    await this.write(`${JSON.stringify(value)}\n`);
  }

  /** A line for people, on stderr. */
  note(text: string): void {
    if (this.#quiet) return;
    this.clearProgress();
    process.stderr.write(`${text}\n`);
  }

  /** Text beside the result, as it comes: reasoning. Dimmed on a terminal. */
  aside(text: string): void {
    if (this.#quiet || text === "") return;
    this.clearProgress();
    process.stderr.write(process.stderr.isTTY ? `\u001b[2m${text}\u001b[22m` : text);
  }

  /** A line that the next one replaces; only on a terminal. */
  progress(text: string): void {
    if (this.#quiet || !process.stderr.isTTY) return;
    process.stderr.write(`\r\u001b[K${text}`);
    this.#progressShown = true;
  }

  clearProgress(): void {
    if (!this.#progressShown) return;
    process.stderr.write("\r\u001b[K");
    this.#progressShown = false;
  }

  /** Ends a line that a partial result left open, on a terminal. */
  endLine(): void {
    if (this.#midLine && process.stdout.isTTY) process.stdout.write("\n");
    this.#midLine = false;
  }

  /** Prints an error in the form of the contract. The caller chooses the exit status. */
  error(error: unknown): void {
    this.clearProgress();
    this.endLine();
    const { code, message, where, hint } = describeError(error);
    if (this.json) {
      process.stdout.write(
        `${JSON.stringify({ error: { code, message: withPlace(message, where), hint: hint ?? null } })}\n`,
      );
    } else {
      process.stderr.write(`error: ${formatError(message, where, hint)}\n`);
    }
    if (process.env.FREEHOLD_DEBUG === "1" && error instanceof Error) process.stderr.write(`${error.stack}\n`);
  }
}

interface ErrorParts {
  readonly code: string;
  readonly message: string;
  readonly where: string | undefined;
  readonly hint: string | undefined;
}

/** The parts of any thrown value; an unexpected one says how to see more. */
export function describeError(error: unknown): ErrorParts {
  if (error instanceof FreeholdError) return error;
  const message = error instanceof Error ? error.message : String(error);
  return {
    code: "internal",
    message: `Unexpected failure: ${message}`,
    where: undefined,
    hint: "This is a bug; run again with FREEHOLD_DEBUG=1 and report what it prints",
  };
}

/** `WHAT (WHERE). HINT` on one line, whatever line ends the parts contain. */
export function formatError(message: string, where: string | undefined, hint: string | undefined): string {
  const sentence = hint === undefined ? "" : `. ${hint}`;
  return `${withPlace(message, where)}${sentence}`.replaceAll(/\s*\n\s*/g, "; ");
}

function withPlace(message: string, where: string | undefined): string {
  return where === undefined || message.includes(where) ? message : `${message} (${where})`;
}
