/**
 * Node's HTTP server with bounds on everything a stranger sends. Its parser stays strict: a request with two lengths, a bare line
 * feed or a NUL never reaches us; what it refuses is answered here, on the bare socket.
 */
import { createServer, type IncomingMessage, type Server, type ServerResponse } from "node:http";
import { createServer as createTlsServer } from "node:https";
import type { Socket } from "node:net";

export interface HttpLimits {
  readonly headersTimeoutMs: number;
  /** For headers and body together. */
  readonly requestTimeoutMs: number;
  readonly keepAliveTimeoutMs: number;
  readonly maxConnections: number;
}

export const defaultHttpLimits: HttpLimits = {
  headersTimeoutMs: 5_000,
  requestTimeoutMs: 10_000,
  // Longer than the usual 60 s of a proxy in front, so that the proxy closes first and no request meets a closing connection.
  keepAliveTimeoutMs: 75_000,
  maxConnections: 10_000,
};

/** Certificate and key as PEM; `clientAuthority`: clients must show a certificate that it signed. */
export interface TlsOptions {
  readonly certificate: string;
  readonly key: string;
  readonly clientAuthority?: string;
}

export type RequestHandler = (request: IncomingMessage, response: ServerResponse, expectsContinue: boolean) => void;

export function createHttpServer(handle: RequestHandler, limits: HttpLimits, tls: TlsOptions | undefined): Server {
  const options = {
    maxHeaderSize: 16 * 2 ** 10,
    headersTimeout: limits.headersTimeoutMs,
    requestTimeout: limits.requestTimeoutMs,
    connectionsCheckingInterval: Math.max(10, Math.min(500, limits.headersTimeoutMs / 5)),
    keepAliveTimeout: limits.keepAliveTimeoutMs,
    insecureHTTPParser: false,
    requireHostHeader: true,
    noDelay: true,
  };
  const server = tls === undefined ? createServer(options) : createTlsServer({ ...options, ...tlsSettings(tls) });
  server.maxHeadersCount = 0;
  server.maxConnections = limits.maxConnections;
  server.on("request", (request, response) => handle(request, response, false));
  server.on("checkContinue", (request, response) => handle(request, response, true));
  server.on("checkExpectation", (_request, response: ServerResponse) => {
    response.writeHead(417, { connection: "close" }).end();
  });
  server.on("clientError", (error: NodeJS.ErrnoException, socket: Socket) => refuse(error, socket));
  // Upgrades (WebSocket) and tunnels are not offered; without a listener Node would answer an upgrade as a plain request.
  server.on("connect", (_request, socket) => socket.destroy());
  return server;
}

function tlsSettings({ certificate, key, clientAuthority }: TlsOptions) {
  const base = { cert: certificate, key, minVersion: "TLSv1.2" } as const;
  if (clientAuthority === undefined) return base;
  return { ...base, ca: clientAuthority, requestCert: true, rejectUnauthorized: true };
}

/** Answers what the parser refused. A connection on which an answer already runs is cut: nothing sensible can follow. */
function refuse(error: NodeJS.ErrnoException, socket: Socket & { _httpMessage?: { headersSent?: boolean } }): void {
  if (error.code === "ECONNRESET" || !socket.writable || socket._httpMessage?.headersSent) {
    socket.destroy();
    return;
  }
  const [status, reason, message] = refusals[error.code ?? ""] ?? [400, "Bad Request", "This is not valid HTTP/1.1"];
  const body = JSON.stringify({ error: { message, type: "invalid_request_error", param: null, code: "bad-http" } });
  socket.end(
    `HTTP/1.1 ${status} ${reason}\r\ncontent-type: application/json\r\ncontent-length: ${Buffer.byteLength(body)}\r\nconnection: close\r\n\r\n${body}`,
    // A client that goes on sending would hold the half-closed connection.
    () => socket.destroy(),
  );
}

const refusals: Readonly<Record<string, readonly [number, string, string]>> = {
  HPE_HEADER_OVERFLOW: [431, "Request Header Fields Too Large", "The headers are longer than 16 KiB"],
  HPE_CHUNK_EXTENSIONS_OVERFLOW: [413, "Content Too Large", "The chunk extensions are too long"],
  ERR_HTTP_REQUEST_TIMEOUT: [408, "Request Timeout", "The request took too long to arrive"],
};
