/**
 * Where the server listens: addresses (or a socket file) for clients, and perhaps a place of its own for those who run it. Places
 * are bound by the supervisor and handed down, or bound here where there is none.
 */
import { chmodSync, existsSync, rmSync } from "node:fs";
import type { Server as HttpServer } from "node:http";
import { type AddressInfo, connect, createServer, type Server } from "node:net";
import { FreeholdError } from "../../errors.ts";
import type { Gateway } from "../gateway.ts";
import { adminPlace, clientPlaces, type Place, type ServeConfig } from "../serve-config.ts";

/** Handles that are bound already, in the order of the places. */
export interface BoundHandles {
  readonly clients: readonly unknown[];
  readonly admin?: unknown;
}

export interface Listening {
  /** Of the first place. */
  readonly url: string;
  readonly adminUrl: string | undefined;
  close(): void;
}

/** Connections that wait to be accepted: with Node's 511, a burst of 3,500 a second lost some, and each came back a second later. */
const backlog = 4096;

/** Throws a FreeholdError that names the place. */
export async function listen(gateway: Gateway, config: ServeConfig, handles?: BoundHandles): Promise<Listening> {
  const [first, ...others] = clientPlaces(config);
  await listenAt(gateway.server, first!, handles?.clients[0]);
  const port = portOf(gateway.server);
  const more: Server[] = [];
  for (const [i, place] of others.entries()) {
    const server = doorTo(gateway.server);
    more.push(server);
    await listenAt(server, samePort(place, port), handles?.clients[i + 1]);
  }
  const admin = adminPlace(config);
  if (admin !== undefined) await listenAt(gateway.adminServer!, admin, handles?.admin);
  return {
    url: urlOf(first!, gateway.server, config.tlsCert === undefined ? "http" : "https"),
    adminUrl: admin && urlOf(admin, gateway.adminServer!, "http"),
    close() {
      for (const server of more) server.close();
    },
  };
}

/** With port 0 all addresses get the port that the first one got. */
export function samePort(place: Place, port: number | undefined): Place {
  return "path" in place || place.port !== 0 || port === undefined ? place : { ...place, port };
}

/** Another address of the same server: its connections are the server's. */
function doorTo(server: HttpServer): Server {
  // As node:http makes its own listener.
  const door = createServer({ allowHalfOpen: true, noDelay: true }, (socket) => server.emit("connection", socket));
  door.maxConnections = server.maxConnections;
  return door;
}

async function listenAt(server: Server, place: Place, handle: unknown): Promise<void> {
  if (handle === undefined && "path" in place) await removeStaleSocket(place.path);
  await new Promise<void>((resolve, reject) => {
    server.once("error", (error: NodeJS.ErrnoException) => reject(listenError(error, place)));
    if (handle === undefined) server.listen({ ...place, backlog }, resolve);
    else server.listen(handle, backlog, resolve);
  });
  if (handle === undefined && "path" in place) protect(place.path);
}

/** Only its owner may open it. */
export function protect(path: string): void {
  if (process.platform !== "win32") chmodSync(path, 0o600);
}

/** A socket file that nobody listens on is left over from a server that was killed. */
export async function removeStaleSocket(path: string): Promise<void> {
  if (!existsSync(path)) return;
  const isInUse = await new Promise<boolean>((resolve) => {
    const socket = connect(path, () => resolve(true));
    socket.on("connect", () => socket.destroy());
    socket.on("error", (error: NodeJS.ErrnoException) => resolve(error.code !== "ECONNREFUSED"));
  });
  if (!isInUse) rmSync(path);
}

export function listenError({ code, message }: NodeJS.ErrnoException, place: Place): FreeholdError {
  const name = "path" in place ? place.path : `${place.host}:${place.port}`;
  if (code === "EADDRINUSE") {
    return new FreeholdError(`${name} is in use by another program`, {
      code: "port-in-use",
      where: "--port",
      hint: "Choose another with --port (0: any that is free)",
    });
  }
  if (code === "EACCES") {
    return new FreeholdError(`${name} may not be used`, {
      code: "port-denied",
      where: "--port",
      hint: "Ports below 1024 need rights",
    });
  }
  return new FreeholdError(`${name} cannot be listened on: ${message}`, { code: "listen", where: "--host" });
}

function urlOf(place: Place, server: Server, scheme: string): string {
  if ("path" in place) return `unix:${place.path}`;
  const { host } = place;
  return `${scheme}://${host.includes(":") ? `[${host}]` : host}:${portOf(server)}`;
}

function portOf(server: Server): number | undefined {
  return (server.address() as AddressInfo | null)?.port;
}
