/**
 * The gateway's end of the pipe: an engine port that outlives engines. When one dies, each running request waits for the next and is
 * submitted again with the tokens that it has: its stream goes on as if nothing had happened, for tokens are functions of the seed
 * and the position. Which request killed an engine is found out by who was running and got no token in its last life (`strikes`).
 */
import { connect, type Socket } from "node:net";
import {
  EngineError,
  type EngineEvent,
  type EngineFailure,
  type EngineInfo,
  type EnginePort,
  type EngineRequest,
  type EngineStatus,
  type RequestImage,
} from "../../engine/batching/engine-port.ts";
import { emptyStatus, type FromEngine, type ToEngine } from "./engine-messages.ts";
import { FrameChannel } from "./frames.ts";
import { ImageCourier } from "./image-courier.ts";
import { RunningRequest } from "./running-request.ts";

export interface RevivalLimits {
  /** How long a request waits for an engine. */
  readonly patienceMs: number;
  readonly reconnectMs: number;
}

const defaultLimits: RevivalLimits = { patienceMs: 600_000, reconnectMs: 50 };

export class EngineClient implements EnginePort {
  readonly #path: string;
  readonly #limits: RevivalLimits;
  readonly #requests = new Map<string, RunningRequest>();
  readonly #images = new ImageCourier();
  #info: EngineInfo | undefined;
  #status = emptyStatus("loading");
  #losses = 0;
  #channel: FrameChannel<ToEngine, FromEngine> | undefined;
  #socket: Socket | undefined;
  /** Whether the engine that is connected has its model. */
  #isReady = false;
  readonly #attached = Promise.withResolvers<void>();
  #isClosed = false;
  #retry: NodeJS.Timeout | undefined;
  #patience: NodeJS.Timeout | undefined;
  /** Suspects wait here: they run one at a time, until one has got a token or is found guilty. */
  #suspects: RunningRequest[] = [];
  #onTrial: RunningRequest | undefined;

  constructor(path: string, limits: Partial<RevivalLimits> = {}) {
    this.#path = path;
    this.#limits = { ...defaultLimits, ...limits };
    this.#connect();
  }

  get info(): EngineInfo | undefined {
    return this.#info;
  }

  get status(): EngineStatus {
    return this.#status;
  }

  /** Resolves when the first engine has told of its model. */
  get attached(): Promise<void> {
    return this.#attached.promise;
  }

  /** Engines that were lost. */
  get losses(): number {
    return this.#losses;
  }

  submit(request: EngineRequest, listener: (event: EngineEvent) => void): void {
    const running = new RunningRequest(request, listener);
    this.#requests.set(request.id, running);
    if (this.#isReady) this.#send(running);
  }

  /** Rejects with an EngineError for an image that cannot be read. */
  prepareImage(source: string): Promise<RequestImage> {
    return this.#images.prepare(source);
  }

  cancel(id: string, keptTokens?: number): void {
    const request = this.#requests.get(id);
    if (request === undefined) return;
    const kept = keptTokens === undefined ? {} : { keptTokens };
    if (request.isSent) this.#channel?.send({ type: "cancel", id, ...kept });
    else this.#finish(request, () => request.end("cancelled"));
  }

  wake(): void {
    if (this.#isReady) this.#channel?.send({ type: "wake" });
  }

  close(): void {
    this.#isClosed = true;
    clearTimeout(this.#retry);
    clearTimeout(this.#patience);
    this.#socket?.destroy();
    this.#images.disconnect();
    this.#images.giveUp();
    this.#failAll({ code: "stopping", message: "The server stops", isRetryable: true });
  }

  #connect(): void {
    const socket = connect(this.#path);
    this.#socket = socket;
    socket.on("error", () => undefined);
    socket.once("connect", () => {
      // Prompts with biases hold maps.
      this.#channel = new FrameChannel(
        socket,
        ({ type }) => type !== "submit",
        (message) => this.#hear(message),
      );
    });
    socket.once("close", () => this.#lost());
  }

  #hear(message: FromEngine): void {
    switch (message.type) {
      case "info":
        this.#info = message.info;
        this.#isReady = true;
        this.#attached.resolve();
        this.#images.connect(this.#channel!);
        clearTimeout(this.#patience);
        this.#patience = undefined;
        this.#resubmit();
        return;
      case "status":
        this.#status = message.status;
        return;
      case "event":
        this.#deliver(message.id, message.event);
        return;
      case "image":
        this.#images.hear(message);
        return;
      default:
        message satisfies never;
    }
  }

  #deliver(id: string, event: EngineEvent): void {
    const request = this.#requests.get(id);
    if (request === undefined) return;
    if (event.type === "error" && event.error.code === "image-lost" && request.mayAskAgain()) {
      this.#sendWithImages(request);
      return;
    }
    if (event.type === "end" || event.type === "error") this.#finish(request, () => request.hear(event));
    else request.hear(event);
    if (request === this.#onTrial && request.hasProgressed) this.#acquit();
  }

  #finish(request: RunningRequest, tell: () => void): void {
    this.#requests.delete(request.id);
    this.#suspects = this.#suspects.filter((suspect) => suspect !== request);
    tell();
    if (request === this.#onTrial) this.#acquit();
  }

  #send(request: RunningRequest): void {
    const finish = request.alreadyFinished();
    if (finish !== undefined) {
      this.#finish(request, () => request.end(finish));
      return;
    }
    if (this.#images.hasCarried(request.images)) this.#channel!.send({ type: "submit", request: request.submission() });
    else this.#sendWithImages(request);
  }

  /** The engine of now does not have the request's images, or not any more. */
  #sendWithImages(request: RunningRequest): void {
    const channel = this.#channel;
    this.#images.carryAgain(request.images).then(
      () => {
        const isWanted = this.#channel === channel && this.#requests.get(request.id) === request;
        if (isWanted) channel!.send({ type: "submit", request: request.submission() });
      },
      (error) => {
        if (!(error instanceof EngineError)) throw error;
        // Of an engine that died the next one hears.
        if (this.#channel === channel && this.#isReady) this.#fail(request, error.failure);
      },
    );
  }

  #resubmit(): void {
    const requests = [...this.#requests.values()];
    this.#suspects = requests.filter(({ isSuspect }) => isSuspect);
    for (const request of requests) if (!request.isSuspect) this.#send(request);
    this.#tryNext();
  }

  #tryNext(): void {
    this.#onTrial = this.#isReady ? this.#suspects.shift() : undefined;
    if (this.#onTrial !== undefined) this.#send(this.#onTrial);
  }

  #acquit(): void {
    this.#onTrial = undefined;
    this.#tryNext();
  }

  #lost(): void {
    if (this.#isClosed) return;
    const hadEngine = this.#channel !== undefined;
    this.#channel = undefined;
    this.#isReady = false;
    this.#images.disconnect();
    this.#retry = setTimeout(() => this.#connect(), this.#limits.reconnectMs);
    this.#patience ??= setTimeout(() => this.#giveUp(), this.#limits.patienceMs).unref();
    if (!hadEngine) return;
    this.#losses++;
    this.#status = { ...this.#status, state: "dead", running: 0, waiting: this.#requests.size };
    this.#judge();
  }

  /** After a death: who goes on, and who does not. */
  #judge(): void {
    for (const request of this.#requests.values()) request.noteDeath();
    const tried = this.#onTrial;
    this.#onTrial = undefined;
    if (tried?.isGuilty) this.#fail(tried, poison);
  }

  #giveUp(): void {
    this.#patience = undefined;
    this.#images.giveUp();
    this.#failAll(died);
  }

  #failAll(error: EngineFailure): void {
    for (const request of [...this.#requests.values()]) this.#fail(request, error);
  }

  #fail(request: RunningRequest, error: EngineFailure): void {
    this.#finish(request, () => request.hear({ type: "error", error }));
  }
}

const poison: EngineFailure = {
  code: "engine_died",
  message: "The engine died at this request each time it was tried",
  hint: "It is not tried again; please report it",
  isRetryable: false,
};

const died: EngineFailure = {
  code: "engine_died",
  message: "The engine died and did not come back in time",
  hint: "Try again later",
  isRetryable: true,
};
