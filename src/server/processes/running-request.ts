/** A request on its way through one engine or several: what it has got, and how often an engine died under it. */
import type { EngineEvent, EngineRequest, RequestImage } from "../../engine/batching/engine-port.ts";

export class RunningRequest {
  readonly #request: EngineRequest;
  readonly #listener: (event: EngineEvent) => void;
  readonly #generated: number[];
  /** Lives of engines, one after the other, in which it ran and got no token. */
  #strikes = 0;
  /** Engines that it was submitted to. */
  #lives = 0;
  #isSent = false;
  #lostImages = 0;
  #hasProgressed = false;
  /** What a listener has heard once it does not hear again from the next engine. */
  readonly #heard = new Set<EngineEvent["type"]>();

  constructor(request: EngineRequest, listener: (event: EngineEvent) => void) {
    this.#request = request;
    this.#listener = listener;
    this.#generated = [...request.generated];
  }

  get id(): string {
    return this.#request.id;
  }

  get images(): readonly RequestImage[] {
    return this.#request.images ?? [];
  }

  get isSent(): boolean {
    return this.#isSent;
  }

  /** Got a token from the present engine. */
  get hasProgressed(): boolean {
    return this.#hasProgressed;
  }

  /** Two such lives: suspects are submitted one at a time until they get a token. */
  get isSuspect(): boolean {
    return this.#strikes >= 2;
  }

  /** Also when it was tried it got no token before the engine died. */
  get isGuilty(): boolean {
    return this.#strikes >= 3;
  }

  /** An engine forgot its images while it waited: it is asked once more, twice at most, with the images just before. */
  mayAskAgain(): boolean {
    if (this.images.length === 0 || this.#lostImages >= 2) return false;
    this.#lostImages++;
    this.#isSent = false;
    return true;
  }

  submission(): EngineRequest {
    this.#isSent = true;
    this.#lives++;
    // The engine has its images already: their bytes do not travel with each request.
    const images = this.#request.images?.map(({ tokenIds }) => ({ source: "", tokenIds }));
    return { ...this.#request, generated: this.#generated, ...(images === undefined ? {} : { images }) };
  }

  /** The end was computed, but not told, before the engine died. */
  alreadyFinished(): "stop" | "length" | undefined {
    if (this.#generated.length === this.#request.generated.length) return undefined;
    if (this.#request.stopTokenIds.includes(this.#generated.at(-1)!)) return "stop";
    return this.#generated.length >= this.#request.maxTokens ? "length" : undefined;
  }

  hear(event: EngineEvent): void {
    switch (event.type) {
      case "tokens":
        this.#hasProgressed = true;
        for (const id of event.ids) this.#generated.push(id);
        this.#listener(event);
        return;
      case "started":
      case "promptLogprobs":
        this.#hearOnce(event);
        return;
      case "prefill":
        if (this.#lives === 1) this.#listener(event);
        return;
      case "end":
        this.#listener({ ...event, usage: { ...event.usage, ...this.#counts() } });
        return;
      case "error":
        this.#listener(event);
        return;
      default:
        event satisfies never;
    }
  }

  /** Ends it without an engine. */
  end(finish: "stop" | "length" | "cancelled"): void {
    const seconds = { queue: 0, prefill: 0, decode: 0 };
    const usage = { ...this.#counts(), cachedTokens: 0, draftedTokens: 0, acceptedTokens: 0, seconds };
    this.#listener({ type: "end", finish, usage });
  }

  noteDeath(): void {
    if (!this.#isSent) return;
    // Also one that seemed to wait only: the word that it was started may have died with the engine.
    this.#strikes = this.#hasProgressed ? 1 : this.#strikes + 1;
    this.#isSent = false;
    this.#hasProgressed = false;
  }

  #hearOnce(event: EngineEvent): void {
    if (this.#heard.has(event.type)) return;
    this.#heard.add(event.type);
    this.#listener(event);
  }

  /** Over all engines: the last one knows its own share only. */
  #counts() {
    return { promptTokens: this.#request.tokenIds.length, generatedTokens: this.#generated.length };
  }
}
