/**
 * Gateway and engine in the caller's process: for small machines and for programs that serve beside other work. The same code
 * without the pipe; what a crash of native code would cost is everything.
 */
import {
  type EngineEvent,
  type EngineInfo,
  type EnginePort,
  type EngineRequest,
  type EngineStatus,
  prepareImage,
  type RequestImage,
} from "../../engine/batching/engine-port.ts";
import type { ServeConfig } from "../serve-config.ts";
import { emptyStatus, type HostedEngine } from "./engine-messages.ts";
import { GatewayHost } from "./gateway-host.ts";
import { startConfiguredEngine } from "./start-engine.ts";

export class SingleProcess {
  readonly #host: GatewayHost;
  readonly #engine: LoadingEngine;

  private constructor(host: GatewayHost, engine: LoadingEngine) {
    this.#host = host;
    this.#engine = engine;
  }

  /** Listens at once, and resolves when the model is loaded. */
  static async start(
    config: ServeConfig,
    { version, onProgress }: { version: string; onProgress?: (loaded: number) => void },
  ): Promise<SingleProcess> {
    const engine = new LoadingEngine();
    const host = await GatewayHost.start(config, { engine, version });
    const server = new SingleProcess(host, engine);
    try {
      const started = await startConfiguredEngine(config, (loaded) => {
        engine.loaded = loaded;
        onProgress?.(loaded);
      });
      engine.attach(started);
    } catch (error) {
      await server.stop(0);
      throw error;
    }
    return server;
  }

  async url(): Promise<string> {
    return this.#host.url;
  }

  async adminUrl(): Promise<string | undefined> {
    return this.#host.adminUrl;
  }

  reload(config: ServeConfig): void {
    this.#host.reload(config);
  }

  #stopped: Promise<void> | undefined;

  /** A second call shortens the first. */
  stop(limitMs: number): Promise<void> {
    const drained = this.#host.gateway.drain(limitMs);
    this.#stopped ??= this.#stop(drained);
    return this.#stopped;
  }

  async #stop(drained: Promise<void>): Promise<void> {
    await drained;
    await this.#host.close();
    await this.#engine.close();
  }
}

/** Stands for an engine while its model loads; routes refuse requests until there is `info`. */
class LoadingEngine implements EnginePort {
  #engine: HostedEngine | undefined;
  loaded = 0;

  get info(): EngineInfo | undefined {
    return this.#engine?.info;
  }

  get status(): EngineStatus {
    return this.#engine?.status ?? emptyStatus("loading", this.loaded);
  }

  attach(engine: HostedEngine): void {
    this.#engine = engine;
  }

  submit(request: EngineRequest, listener: (event: EngineEvent) => void): void {
    if (this.#engine !== undefined) this.#engine.submit(request, listener);
    else listener({ type: "error", error: { code: "loading", message: "The model is loading", isRetryable: true } });
  }

  cancel(id: string, keptTokens?: number): void {
    this.#engine?.cancel(id, keptTokens);
  }

  wake(): void {
    this.#engine?.wake?.();
  }

  prepareImage(source: string): Promise<RequestImage> {
    return prepareImage(this.#engine, source);
  }

  async close(): Promise<void> {
    await this.#engine?.close();
  }
}
