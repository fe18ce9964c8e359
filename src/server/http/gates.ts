/**
 * The gates of one listener, in their order: headers, Host, Origin, route, key, drain. What passes has a route and a name; what does
 * not is refused before a byte of its body is read.
 */
import { HttpError } from "../http-error.ts";
import { anonymous, type Identity, type Keyring, operator } from "../keys.ts";
import type { ErrorDialect, Route } from "../route.ts";
import type { Exchange } from "./exchange.ts";
import { checkHost, checkOrigin, corsHeaders, type OriginPolicy, preflightHeaders } from "./origin-check.ts";
import { checkHeaders, targetUrl } from "./request-target.ts";
import { Router } from "./router.ts";

export interface GateParts {
  readonly routes: readonly Route[];
  /** As they are now: a reload changes them. */
  keyring(): Keyring | undefined;
  origins(): Partial<OriginPolicy> | undefined;
  isDraining(): boolean;
  /** Who can open the listener at all may do everything: a socket file of its owner. */
  readonly isTrusted?: boolean;
}

export class Gates {
  readonly #parts: GateParts;
  readonly #router: Router;

  constructor(parts: GateParts) {
    this.#parts = parts;
    this.#router = new Router(parts.routes);
  }

  /** Gives the exchange its route and its identity; undefined when it was answered here. Throws an HttpError. */
  pass(exchange: Exchange): URL | undefined {
    const { request, response } = exchange;
    for (const [name, value] of securityHeaders) response.setHeader(name, value);
    response.setHeader("x-request-id", exchange.requestId);
    checkHeaders(request);
    const url = targetUrl(request.url ?? "/");
    exchange.path = url.pathname;
    const policy = this.#originPolicy();
    for (const [name, value] of Object.entries(corsHeaders(request.headers.origin, policy)))
      response.setHeader(name, value);
    checkHost(request.headers, policy);
    // A browser that finds no permission in the answer asks no further: the question itself is nothing to refuse.
    if (request.method === "OPTIONS") {
      this.#preflight(exchange);
      return undefined;
    }
    checkOrigin(request.headers, policy);
    exchange.match = this.#router.match(request.method ?? "GET", url.pathname);
    exchange.identity = this.#identify(exchange);
    this.#checkDrain(exchange.match.route);
    return url;
  }

  /** In whose shape a fault of this exchange is answered. */
  dialectOf({ match, path }: Exchange): ErrorDialect {
    return match?.route.errors ?? this.#router.dialect(path);
  }

  #originPolicy(): OriginPolicy {
    const { isTrusted = false } = this.#parts;
    const hasKeys = this.#parts.keyring() !== undefined;
    const given = { origins: [], hosts: [], isUnixSocket: isTrusted, isLoopback: true, ...this.#parts.origins() };
    return { ...given, hasKeys };
  }

  #preflight({ request, response, path }: Exchange): void {
    const methods = this.#router.methods(path);
    if (methods === undefined) throw new HttpError(404, `There is no ${path}`, { code: "not-found" });
    const isPreflight = request.headers.origin !== undefined && response.hasHeader("access-control-allow-origin");
    // A real preflight gets 200: some clients take nothing else for a permission.
    const status = request.headers["access-control-request-method"] === undefined ? 204 : 200;
    response.writeHead(status, { allow: methods.join(", "), ...(isPreflight ? preflightHeaders(methods) : {}) }).end();
  }

  #identify({ request, match }: Exchange): Identity {
    if (this.#parts.isTrusted) return operator;
    return this.#parts.keyring()?.authenticate(request.headers, match!.route.scope) ?? anonymous;
  }

  #checkDrain({ scope }: Route): void {
    if (!this.#parts.isDraining() || scope !== "infer") return;
    throw new HttpError(503, "The server is about to stop", {
      code: "draining",
      retryAfterSeconds: 5,
      headers: { connection: "close" },
    });
  }
}

const securityHeaders: readonly (readonly [string, string])[] = [
  ["x-content-type-options", "nosniff"],
  ["referrer-policy", "no-referrer"],
];
