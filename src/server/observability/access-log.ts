/** One JSON line a request: who, what, how long, how many tokens. Never a prompt, an answer, a query string or a key. */
import { createWriteStream } from "node:fs";

export interface AccessEntry {
  readonly requestId: string;
  readonly method: string;
  /** The pattern of the route, or the path where there is none. */
  readonly route: string;
  readonly status: number;
  readonly key: string;
  readonly ms: number;
  readonly tokens?: { readonly prompt: number; readonly cached: number; readonly generated: number };
  /** Code of the fault, "cut" or "closed" for a client that read too slowly or went away. */
  readonly fault?: string;
}

export type WriteLine = (line: string) => void;

export function accessLine(entry: AccessEntry, now: Date): string {
  return JSON.stringify({ time: now.toISOString(), ...entry, ms: Math.round(entry.ms * 10) / 10 });
}

/** Lines to stderr ("-") or the end of a file; "off" is nothing. A log that cannot be written is told once and never stops the server. */
export function openLog(path: string): { write: WriteLine; close(): void } {
  if (path === "off") return { write: () => undefined, close: () => undefined };
  if (path === "-") return { write: (line) => void process.stderr.write(`${line}\n`), close: () => undefined };
  const file = createWriteStream(path, { flags: "a", mode: 0o600 });
  let hasFailed = false;
  file.on("error", (error) => {
    if (!hasFailed) process.stderr.write(`warning: The log cannot be written: ${error.message} (${path})\n`);
    hasFailed = true;
  });
  const write = (line: string) => {
    // A disk that is slower than the requests costs lines, not memory.
    if (!hasFailed && file.writableLength < 2 ** 22) file.write(`${line}\n`);
  };
  return { write, close: () => file.end() };
}
