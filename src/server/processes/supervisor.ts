/**
 * The process that stays. It holds the listening socket, so that connections wait in the kernel while a gateway is started again;
 * it starts gateway and engine, watches both, and reads no byte of a client.
 */

import { randomUUID } from "node:crypto";
import { lookup } from "node:dns/promises";
import { mkdtempSync, rmSync } from "node:fs";
import net from "node:net";
import { tmpdir } from "node:os";
import { join, resolve } from "node:path";
import { getSystemErrorName } from "node:util";
import type { EngineStatus } from "../../engine/batching/engine-port.ts";
import { diskFileSystem } from "../../engine/store/file-system.ts";
import type { FreeholdError } from "../../errors.ts";
import { adminPlace, clientPlaces, type Place, type ServeConfig } from "../serve-config.ts";
import { listenError, protect, removeStaleSocket, samePort } from "./listen.ts";
import { ManagedChild } from "./managed-child.ts";
import { moduleBeside } from "./module-path.ts";
import type { FromChild } from "./supervisor-messages.ts";

export interface SupervisorHooks {
  /** Share of the model that is loaded. */
  onProgress?(loaded: number): void;
  /** Something that whoever runs the server should know. */
  onNote?(text: string): void;
  /** Nothing can be done: the server is over. */
  onFatal?(error: FreeholdError): void;
  readonly version: string;
}

/** A child says something every half second. A machine that swaps may keep it from that for a while. */
const silenceMs = 15_000;
/** Compiling and reading a large model may hold the engine's event loop; bytes from a slow disk come late. */
const loadSilenceMs = 600_000;

/**
 * A small young generation: what a token leaves behind is dead at once, and with V8's 16 MB the heap grew to 309 MB at 2,000 streams
 * of 20 tokens a second, with 8 MB to 189 MB, with no later tokens.
 */
const gatewayFlags = ["--disallow-code-generation-from-strings", "--max-semi-space-size=8"];

/** The gateway reads files and writes its logs and what it remembers; it starts no process or thread, loads no native code, and writes nothing else. */
function permissions({ log, audit, turnDirectory }: ServeConfig): string[] {
  const files = [log, audit].filter((path) => path !== undefined && path !== "-" && path !== "off");
  const written = files.map((path) => resolve(path!));
  if (turnDirectory !== undefined) written.push(resolve(turnDirectory), join(resolve(turnDirectory), "*"));
  return ["--permission", "--allow-fs-read=*", ...written.map((path) => `--allow-fs-write=${path}`)];
}

export class Supervisor {
  readonly #config: { current: ServeConfig };
  readonly #hooks: SupervisorHooks;
  readonly #sockets: readonly BoundPlace[];
  readonly #directory: string;
  readonly #enginePath: string;
  readonly #engine: ManagedChild;
  readonly #gateway: ManagedChild;
  readonly #watch: NodeJS.Timeout;
  readonly #listening = Promise.withResolvers<{ readonly url: string; readonly adminUrl: string | undefined }>();
  readonly #attached = Promise.withResolvers<void>();
  readonly #progress = new StepWatch();

  private constructor(config: ServeConfig, hooks: SupervisorHooks, sockets: readonly BoundPlace[]) {
    this.#config = { current: config };
    this.#hooks = hooks;
    this.#sockets = sockets;
    this.#directory = mkdtempSync(join(tmpdir(), "freehold-"));
    this.#enginePath =
      process.platform === "win32" ? `\\\\.\\pipe\\freehold-${randomUUID()}` : join(this.#directory, "engine.sock");
    this.#engine = this.#child("engine", "./engine-process", loadSilenceMs);
    this.#gateway = this.#child("gateway", "./gateway-process", silenceMs);
    this.#watch = setInterval(() => this.#look(), 250);
  }

  /** Resolves when the gateway listens and knows that the model is loaded; throws what keeps one of them from it. */
  static async start(config: ServeConfig, hooks: SupervisorHooks): Promise<Supervisor> {
    // The gateway may write to this folder, and may make none above it. What is refused here, the store tells.
    if (config.turnDirectory !== undefined)
      await diskFileSystem.makeDirectory(config.turnDirectory).catch(() => undefined);
    const supervisor = new Supervisor(config, hooks, await bindAll(config));
    try {
      await Promise.all([supervisor.#listening.promise, supervisor.#attached.promise]);
      return supervisor;
    } catch (error) {
      await supervisor.stop(0);
      throw error;
    }
  }

  /** Where the gateway listens. */
  async url(): Promise<string> {
    return (await this.#listening.promise).url;
  }

  /** Where the routes of those who run the server are, if not with the others. */
  async adminUrl(): Promise<string | undefined> {
    return (await this.#listening.promise).adminUrl;
  }

  get enginePid(): number | undefined {
    return this.#engine.pid;
  }

  get gatewayPid(): number | undefined {
    return this.#gateway.pid;
  }

  reload(config: ServeConfig): void {
    this.#config.current = config;
    this.#gateway.send({ type: "reload", config });
  }

  #stopped: Promise<void> | undefined;

  /** Drains the gateway, then lets the engine keep what it has. A second call shortens the first. */
  stop(limitMs: number): Promise<void> {
    if (this.#stopped !== undefined) this.#gateway.send({ type: "stop", limitMs });
    this.#stopped ??= this.#stop(limitMs);
    return this.#stopped;
  }

  async #stop(limitMs: number): Promise<void> {
    clearInterval(this.#watch);
    await this.#gateway.stop(limitMs, 5_000);
    await this.#engine.stop(0, 30_000);
    for (const { socket } of this.#sockets) socket.close();
    rmSync(this.#directory, { recursive: true, force: true });
    for (const { place } of this.#sockets) if ("path" in place) rmSync(place.path, { force: true });
  }

  #child(name: "engine" | "gateway", module: string, silence: number): ManagedChild {
    return new ManagedChild({
      name,
      module: moduleBeside(import.meta.url, module),
      execArgv: name === "gateway" ? [...gatewayFlags, ...permissions(this.#config.current)] : [],
      silenceMs: silence,
      start: () => {
        const sockets = name === "gateway" ? this.#sockets : [];
        const { version } = this.#hooks;
        return [
          ...sockets.map(({ use, socket }) => ({ message: { type: "socket", use } as const, handle: socket })),
          { message: { type: "start", config: this.#config.current, enginePath: this.#enginePath, version } },
        ];
      },
      onMessage: (message) => this.#hear(name, message),
      onFatal: (error) => this.#fatal(error),
      onNote: (text) => this.#hooks.onNote?.(text),
    });
  }

  #hear(from: "engine" | "gateway", message: FromChild): void {
    switch (message.type) {
      case "ready":
        if (from === "gateway") this.#listening.resolve({ url: message.url!, adminUrl: message.adminUrl });
        return;
      case "attached":
        this.#attached.resolve();
        return;
      case "heartbeat":
        if (message.status !== undefined) this.#noteStatus(message.status);
        return;
      case "warning":
        this.#hooks.onNote?.(message.message);
        return;
      case "failed":
        return;
      default:
        message satisfies never;
    }
  }

  #noteStatus(status: EngineStatus): void {
    if (status.state === "loading") this.#hooks.onProgress?.(status.loaded);
    this.#progress.note(status);
  }

  #look(): void {
    this.#gateway.watch();
    this.#engine.watch();
    const { wedgeMs } = this.#config.current;
    if (!this.#progress.isWedged(wedgeMs)) return;
    this.#progress.reset();
    this.#engine.kill(`made no step for ${Math.round(wedgeMs / 1000)} s`);
  }

  #fatal(error: FreeholdError): void {
    this.#listening.reject(error);
    this.#attached.reject(error);
    // Both may have been settled before, or be asked for by nobody.
    this.#listening.promise.catch(() => undefined);
    this.#attached.promise.catch(() => undefined);
    this.#hooks.onFatal?.(error);
  }
}

/** Whether an engine that has work makes steps, and one without work turns idly; by the clock of this process. */
class StepWatch {
  #heartbeatMs = 0;
  #steps = -1;
  #changedMs: number | undefined;

  note({ state, steps, running, waiting, heartbeatMs }: EngineStatus): void {
    const hasChanged = steps !== this.#steps || heartbeatMs !== this.#heartbeatMs;
    if (hasChanged || state !== "ready" || running + waiting === 0) this.#changedMs = performance.now();
    this.#steps = steps;
    this.#heartbeatMs = heartbeatMs;
  }

  isWedged(limitMs: number): boolean {
    return this.#changedMs !== undefined && performance.now() - this.#changedMs > limitMs;
  }

  reset(): void {
    this.#changedMs = undefined;
  }
}

interface BoundSocket {
  close(): void;
  getsockname?(address: object): number;
}

interface BoundPlace {
  readonly use: "clients" | "admin";
  readonly place: Place;
  readonly socket: BoundSocket;
}

/** Every place of the configuration, or none where this Node cannot bind without accepting. */
async function bindAll(config: ServeConfig): Promise<readonly BoundPlace[]> {
  const bound: BoundPlace[] = [];
  const admin = adminPlace(config);
  const wanted = [
    ...clientPlaces(config).map((place) => ({ use: "clients", place }) as const),
    ...(admin === undefined ? [] : [{ use: "admin", place: admin } as const]),
  ];
  let port: number | undefined;
  try {
    for (const { use, place } of wanted) {
      const socket = await bind(use === "clients" ? samePort(place, port) : place);
      if (socket === undefined) return [];
      bound.push({ use, place, socket });
      port ??= portOf(socket);
    }
    return bound;
  } catch (error) {
    for (const { socket } of bound) socket.close();
    throw error;
  }
}

function portOf(socket: BoundSocket): number | undefined {
  const address: { port?: number } = {};
  socket.getsockname?.(address);
  return address.port;
}

/**
 * A socket that is bound and that nobody accepts on: a listening net.Server would accept here, beside the gateway. This is how
 * Node's cluster module shares a port (`SCHED_NONE`); the function has no documentation, so where it is missing the gateway binds
 * by itself, and connections are refused while it is started again.
 */
async function bind(place: Place): Promise<BoundSocket | undefined> {
  const { _createServerHandle: create } = net as unknown as {
    _createServerHandle?: (
      address: string,
      port: number,
      family: number,
      fd?: number,
      flags?: number,
    ) => BoundSocket | number;
  };
  if (create === undefined) return undefined;
  if ("path" in place) return bindUnix(create, place);
  const { address, family } = await lookup(place.host).catch((cause: NodeJS.ErrnoException) => {
    throw listenError(cause, place);
  });
  const socket = checked(create(address, place.port, family), place);
  // libuv keeps the error "in use" of bind for the first call after it; the gateway would get a socket without a port.
  checked(socket.getsockname?.({}) || socket, place);
  return socket;
}

async function bindUnix(
  create: (address: string, port: number, family: number) => BoundSocket | number,
  place: { readonly path: string },
): Promise<BoundSocket> {
  await removeStaleSocket(place.path);
  const socket = checked(create(place.path, -1, -1), place);
  protect(place.path);
  return socket;
}

function checked(result: BoundSocket | number, place: Place): BoundSocket {
  if (typeof result !== "number") return result;
  const code = getSystemErrorName(result);
  throw listenError(Object.assign(new Error(code), { code }), place);
}
