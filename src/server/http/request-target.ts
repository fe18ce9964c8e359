/** What stands at the head of a request: target, id, headers. Node has parsed it; here it is held to our bounds. */
import { randomUUID } from "node:crypto";
import type { IncomingMessage } from "node:http";
import { HttpError } from "../http-error.ts";

/**
 * Node drops headers beyond its count limit without a word (2,600 small ones were answered with 200): its limit is off and ours
 * is an error.
 */
const maxHeaders = 100;

/** Throws an HttpError: 431 for too many headers, 400 for two Hosts, of which a proxy may have checked the other. */
export function checkHeaders({ rawHeaders, headersDistinct }: IncomingMessage): void {
  const count = rawHeaders.length / 2;
  if ((headersDistinct.host?.length ?? 0) > 1) {
    throw new HttpError(400, "The request names two hosts", { code: "bad-http", headers: { connection: "close" } });
  }
  if (count <= maxHeaders) return;
  throw new HttpError(431, `The request has ${count} headers, at most ${maxHeaders} are taken`, {
    code: "too-many-headers",
    headers: { connection: "close" },
  });
}

/** The URL of a request. Origin form, absolute form and "//host/path" all give a path of this server. */
export function targetUrl(target: string): URL {
  try {
    return new URL(target.startsWith("/") || target === "*" ? `http://localhost${target.replace("*", "/")}` : target);
  } catch (cause) {
    throw new HttpError(400, "The target of the request is no path", { code: "bad-path", cause });
  }
}

/** The client's id when it is short and harmless in a log; otherwise one of our own. */
export function requestIdOf(given: string | string[] | undefined): string {
  return typeof given === "string" && /^[\w.:-]{1,128}$/.test(given)
    ? given
    : `req_${randomUUID().replaceAll("-", "")}`;
}
