/** An error with the HTTP status that it is answered with. */
import { type ErrorDetails, FreeholdError } from "../errors.ts";

export interface HttpErrorDetails extends ErrorDetails {
  /** Seconds after which a client may try again. */
  readonly retryAfterSeconds?: number;
  readonly headers?: Readonly<Record<string, string>>;
}

export class HttpError extends FreeholdError {
  readonly status: number;
  readonly retryAfterSeconds: number | undefined;
  readonly headers: Readonly<Record<string, string>>;

  constructor(status: number, message: string, details: HttpErrorDetails = {}) {
    super(message, details);
    this.status = status;
    this.retryAfterSeconds = details.retryAfterSeconds;
    this.headers = details.headers ?? {};
  }
}
