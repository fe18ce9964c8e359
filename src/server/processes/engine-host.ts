/**
 * The engine's end of the pipe. It answers from the first moment, while the model still loads, and takes any number of gateways one
 * after another: requests of one that is gone are ended.
 */
import { createServer, type Server, type Socket } from "node:net";
import { EngineError, type EngineStatus, prepareImage } from "../../engine/batching/engine-port.ts";
import { emptyStatus, type FromEngine, type HostedEngine, isPlain, type ToEngine } from "./engine-messages.ts";
import { FrameChannel } from "./frames.ts";

const statusIntervalMs = 250;

export class EngineHost {
  readonly #server: Server;
  readonly #gateways = new Set<GatewayConnection>();
  readonly #timer: NodeJS.Timeout;
  #engine: HostedEngine | undefined;
  #loaded = 0;
  #connections = 0;

  private constructor(server: Server) {
    this.#server = server;
    server.on("connection", (socket) => this.#accept(socket));
    this.#timer = setInterval(() => this.#tellAll(), statusIntervalMs);
  }

  /** Listens on a Unix socket or, on Windows, a named pipe. */
  static async listen(path: string): Promise<EngineHost> {
    const server = createServer();
    await new Promise<void>((resolve, reject) => server.once("error", reject).listen(path, resolve));
    return new EngineHost(server);
  }

  set loaded(share: number) {
    this.#loaded = share;
  }

  /** The model is loaded: from now on requests are taken. */
  attach(engine: HostedEngine): void {
    this.#engine = engine;
    for (const gateway of this.#gateways) gateway.attach(engine);
    this.#tellAll();
  }

  get status(): EngineStatus {
    return this.#engine?.status ?? emptyStatus("loading", this.#loaded);
  }

  close(): void {
    clearInterval(this.#timer);
    this.#server.close();
    for (const gateway of this.#gateways) gateway.close();
  }

  #accept(socket: Socket): void {
    const gateway = new GatewayConnection(socket, `${this.#connections++}:`);
    this.#gateways.add(gateway);
    socket.on("close", () => this.#gateways.delete(gateway));
    if (this.#engine !== undefined) gateway.attach(this.#engine);
    gateway.tell({ type: "status", status: this.status });
  }

  #tellAll(): void {
    const { status } = this;
    for (const gateway of this.#gateways) gateway.tell({ type: "status", status });
  }
}

class GatewayConnection {
  readonly #channel: FrameChannel<FromEngine, ToEngine>;
  readonly #socket: Socket;
  readonly #prefix: string;
  readonly #running = new Set<string>();
  /** What came so far of an image. */
  #image: { readonly id: number; readonly pieces: string[] } = { id: -1, pieces: [] };
  #engine: HostedEngine | undefined;

  /** `prefix` keeps the ids of two gateways apart. */
  constructor(socket: Socket, prefix: string) {
    this.#socket = socket;
    this.#prefix = prefix;
    this.#channel = new FrameChannel(socket, isPlain, (message: ToEngine) => this.#obey(message));
    socket.on("error", () => undefined);
    socket.on("close", () => this.#cancelAll());
  }

  attach(engine: HostedEngine): void {
    this.#engine = engine;
    if (engine.info !== undefined) this.tell({ type: "info", info: engine.info });
  }

  tell(message: FromEngine): void {
    if (!this.#socket.destroyed) this.#channel.send(message);
  }

  close(): void {
    this.#channel.flush();
    this.#socket.end();
  }

  #obey(message: ToEngine): void {
    switch (message.type) {
      case "submit":
        this.#submit(message.request);
        return;
      case "cancel":
        this.#engine?.cancel(this.#prefix + message.id, message.keptTokens);
        return;
      case "wake":
        this.#engine?.wake?.();
        return;
      case "image":
        this.#takeImage(message);
        return;
      default:
        message satisfies never;
    }
  }

  #submit({ id, ...request }: Extract<ToEngine, { type: "submit" }>["request"]): void {
    this.#running.add(id);
    this.#engine!.submit({ ...request, id: this.#prefix + id }, (event) => {
      if (event.type === "end" || event.type === "error") this.#running.delete(id);
      this.tell({ type: "event", id, event });
    });
  }

  #takeImage({ id, piece, isLast }: Extract<ToEngine, { type: "image" }>): void {
    // Another id: the gateway has given up the one before.
    if (this.#image.id !== id) this.#image = { id, pieces: [] };
    const { pieces } = this.#image;
    pieces.push(piece);
    if (!isLast) return;
    this.#image = { id: -1, pieces: [] };
    void this.#prepareImage(id, pieces.join(""));
  }

  async #prepareImage(id: number, source: string): Promise<void> {
    try {
      const { tokenIds } = await prepareImage(this.#engine, source);
      this.tell({ type: "image", id, result: { tokenIds } });
    } catch (error) {
      if (!(error instanceof EngineError)) throw error;
      this.tell({ type: "image", id, result: { failure: error.failure } });
    }
  }

  #cancelAll(): void {
    for (const id of this.#running) this.#engine?.cancel(this.#prefix + id);
  }
}
