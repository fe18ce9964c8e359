/**
 * Who used which key for what, in a file to which is only ever appended. Each line holds the hash of the line before it: a line that
 * is changed, removed or put in between shows.
 */
import { createHash } from "node:crypto";
import { appendFileSync, existsSync, readFileSync } from "node:fs";
import { FormatError } from "../../errors.ts";

export interface AuditEvent {
  readonly who: string;
  readonly what: string;
  readonly requestId?: string;
  readonly model?: string;
  readonly tokens?: number;
}

const beginning = "0".repeat(64);

export class AuditLog {
  readonly #path: string;
  #last: string;

  /** Goes on where the file ends; throws a FormatError when its chain is broken. */
  constructor(path: string) {
    this.#path = path;
    this.#last = existsSync(path) ? verifyAudit(readFileSync(path, "utf8"), path) : beginning;
  }

  append(event: AuditEvent, now: Date): void {
    const entry = JSON.stringify({ time: now.toISOString(), ...event, previous: this.#last });
    appendFileSync(this.#path, `${entry}\n`, { mode: 0o600 });
    this.#last = hashOf(entry);
  }
}

/** The hash of the last line. Throws a FormatError that names the line at which the chain breaks. */
export function verifyAudit(text: string, path: string): string {
  let previous = beginning;
  const lines = text.split("\n").filter((line) => line !== "");
  lines.forEach((line, i) => {
    if (previousOf(line) !== previous) {
      throw new FormatError(`The audit log is broken at line ${i + 1}`, {
        code: "audit-chain",
        where: path,
        hint: "Keep this file as evidence and name a new one",
      });
    }
    previous = hashOf(line);
  });
  return previous;
}

function previousOf(line: string): unknown {
  try {
    return (JSON.parse(line) as { previous?: unknown }).previous;
  } catch {
    return undefined;
  }
}

function hashOf(line: string): string {
  return createHash("sha256").update(line).digest("hex");
}
