/**
 * Every error that Freehold raises on purpose. A message has three parts: what went wrong (`message`), where (`where`)
 * and how to mend it (`hint`); the command line prints them as `error: WHAT (WHERE). HINT`, the server in its own shapes.
 * `code` is stable: programs may test it.
 */

export interface ErrorDetails {
  /** Stable kebab-case code; each class has a default. */
  readonly code?: string;
  /** The file, tensor, option or field concerned. */
  readonly where?: string;
  /** What the reader can do about it: one sentence, without a final stop. */
  readonly hint?: string;
  readonly cause?: unknown;
}

export class FreeholdError extends Error {
  readonly code: string;
  readonly where: string | undefined;
  readonly hint: string | undefined;

  constructor(message: string, details: ErrorDetails = {}) {
    super(message, details.cause === undefined ? undefined : { cause: details.cause });
    this.name = new.target.name;
    this.code = details.code ?? "error";
    this.where = details.where;
    this.hint = details.hint;
  }
}

/** A command or an option was used wrongly. Exit status 2. */
export class UsageError extends FreeholdError {
  constructor(message: string, details: ErrorDetails = {}) {
    super(message, { code: "usage", ...details });
  }
}

/** Bytes that are not what their format demands (safetensors, GGUF, tokenizer.json ...). */
export class FormatError extends FreeholdError {
  constructor(message: string, details: ErrorDetails = {}) {
    super(message, { code: "format", ...details });
  }
}

/** An image that cannot be read: unknown or refused type, damaged, too large, too slow. HTTP status 400. */
export class MediaError extends FreeholdError {
  constructor(message: string, details: ErrorDetails = {}) {
    super(message, { code: "media", ...details });
  }
}

/** A config or a set of weights that does not make a model this version can run. */
export class ModelError extends FreeholdError {
  constructor(message: string, details: ErrorDetails = {}) {
    super(message, { code: "model", ...details });
  }
}

/** Tensors whose shapes do not fit together. */
export class ShapeError extends FreeholdError {
  constructor(message: string, details: ErrorDetails = {}) {
    super(message, { code: "shape", ...details });
  }
}

/** A device that is absent or cannot do what was asked. */
export class DeviceError extends FreeholdError {
  constructor(message: string, details: ErrorDetails = {}) {
    super(message, { code: "device", ...details });
  }
}

/** A request (messages, options, prompt) that the model cannot be asked. HTTP status 400. */
export class RequestError extends FreeholdError {
  constructor(message: string, details: ErrorDetails = {}) {
    super(message, { code: "request", ...details });
  }
}

/** The beginning of a text that is not ours, as a message shows it. */
export function quoted(text: string): string {
  return JSON.stringify(text.slice(0, 80)).slice(0, 80);
}
