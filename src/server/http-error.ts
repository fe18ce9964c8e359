/** An error with the HTTP status that it is answered with. */
import { type ErrorDetails, FreeholdError } from "../errors.ts";

export interface HttpErrorDetails extends ErrorDetails {
  /** Seconds after which a client may try again. */
  readonly retryAfterSeconds?: number;
  readonly headers?: Readonly<Record<string, string>>;
  /** Of a prompt that does not fit: what it has and what there is room for. Clients compute from it how much to drop. */
  readonly tokens?: { readonly prompt: number; readonly context: number };
}

export class HttpError extends FreeholdError {
  readonly status: number;
  readonly retryAfterSeconds: number | undefined;
  readonly headers: Readonly<Record<string, string>>;
  readonly tokens: HttpErrorDetails["tokens"];

  constructor(status: number, message: string, details: HttpErrorDetails = {}) {
    super(message, details);
    this.status = status;
    this.retryAfterSeconds = details.retryAfterSeconds;
    this.headers = details.headers ?? {};
    this.tokens = details.tokens;
  }
}
