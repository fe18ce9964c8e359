/**
 * Whom a browser may let in. A page of another site can send requests to localhost, and DNS rebinding lets it read the answers: the
 * name in Host is then the attacker's. So Host must name this machine, and Origin this server or a listed one.
 * CORS answers exist for listed origins only, and never allow cookies.
 */
import type { IncomingHttpHeaders } from "node:http";
import { hostname } from "node:os";
import { HttpError } from "../http-error.ts";

export interface OriginPolicy {
  /** Origins that browsers may call from: "https://app.example"; "localhost" is any port of this machine, "*" is any. */
  readonly origins: readonly string[];
  /** Names that Host may have beside those of this machine. */
  readonly hosts: readonly string[];
  /** With keys a page of another site has no way in: Host is checked only where hosts are listed. */
  readonly hasKeys: boolean;
  /** No browser reaches a Unix socket. */
  readonly isUnixSocket: boolean;
  /** Whether the server listens on a loopback address. */
  readonly isLoopback: boolean;
}

/** Throws an HttpError (403) for a Host that is not ours. */
export function checkHost({ host }: IncomingHttpHeaders, policy: OriginPolicy): void {
  if (!policy.isUnixSocket && !isHostAllowed(host ?? "", policy)) {
    throw new HttpError(403, `This server does not answer to the host name ${JSON.stringify(host ?? "")}`, {
      code: "host-not-allowed",
      hint: "Name it with --allow-host",
    });
  }
}

/** Throws an HttpError (403) for an Origin that is not ours. */
export function checkOrigin({ host, origin }: IncomingHttpHeaders, policy: OriginPolicy): void {
  if (origin === undefined || isSameOrigin(origin, host) || isListed(origin, policy)) return;
  throw new HttpError(403, `Pages of ${JSON.stringify(origin)} may not call this server`, {
    code: "origin-not-allowed",
    hint: "Allow it with --cors",
  });
}

/** Headers that let a page of a listed origin read the answer, written as in the standard: some scripts compare letter by letter. */
export function corsHeaders(origin: string | undefined, policy: OriginPolicy): Record<string, string> {
  if (policy.origins.length === 0) return {};
  if (origin === undefined || !isListed(origin, policy)) return { vary: "origin" };
  return {
    "Access-Control-Allow-Origin": origin,
    "Access-Control-Expose-Headers": "x-request-id, retry-after",
    vary: "origin",
  };
}

/** What a preflight request of a listed origin is told beyond that. */
export function preflightHeaders(methods: readonly string[]): Record<string, string> {
  return {
    "Access-Control-Allow-Methods": methods.join(", "),
    "Access-Control-Allow-Headers":
      "authorization, content-type, x-api-key, x-request-id, idempotency-key, x-conversation-id, last-event-id, anthropic-version, anthropic-beta, traceparent",
    "Access-Control-Max-Age": "600",
  };
}

function isHostAllowed(host: string, { hosts, hasKeys, isLoopback }: OriginPolicy): boolean {
  const name = nameOf(host);
  if (hosts.includes(name) || isLoopbackName(name)) return true;
  if (hasKeys && hosts.length === 0) return true;
  // An address cannot be rebound, nor can the machine's own name by a stranger.
  return !isLoopback && hosts.length === 0 && (isAddress(name) || name === hostname().toLowerCase());
}

/** Host without its port, in lower case; an IPv6 address without its brackets. */
function nameOf(host: string): string {
  const [, bracketed, plain] = /^(?:\[([^\]]*)\]|([^:]*))(?::\d*)?$/.exec(host.toLowerCase()) ?? [];
  return (bracketed ?? plain ?? "").replace(/\.$/, "");
}

export function isLoopbackName(name: string): boolean {
  return name === "localhost" || name.endsWith(".localhost") || name === "::1" || /^127\.\d+\.\d+\.\d+$/.test(name);
}

function isAddress(name: string): boolean {
  return /^\d+\.\d+\.\d+\.\d+$/.test(name) || name.includes(":");
}

function isSameOrigin(origin: string, host: string | undefined): boolean {
  return /^https?:\/\//.test(origin) && origin.replace(/^https?:\/\//, "").toLowerCase() === host?.toLowerCase();
}

function isListed(origin: string, { origins }: OriginPolicy): boolean {
  return (
    origins.includes("*") || origins.includes(origin) || (origins.includes("localhost") && isOfThisMachine(origin))
  );
}

/** A development server on whatever port it found free. */
function isOfThisMachine(origin: string): boolean {
  const [, authority] = /^https?:\/\/([^/]+)$/.exec(origin) ?? [];
  return authority !== undefined && isLoopbackName(nameOf(authority));
}
