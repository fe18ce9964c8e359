/** From generated tokens to deltas. In a chat the markers are the tokens themselves; text that spells them is text. */
import { dsml, endOfThinking, type Marker } from "../chat/markers.ts";
import {
  type Delta,
  type FinishReason,
  OutputParser,
  type ParsedMessage,
  type ParseOptions,
} from "../chat/output-parser.ts";
import type { StreamDecoder } from "../tokenizer/stream-decoder.ts";
import type { Tokenizer } from "../tokenizer/tokenizer.ts";

const unstructured: ParseOptions = {
  start: "contentContinuation",
  toolCalls: false,
  inToolCalls: false,
  json: false,
  stop: [],
};

/** `parse` is undefined for text that has no structure: then no token is a marker. */
export class OutputReader {
  readonly #tokenizer: Tokenizer | undefined;
  readonly #parser: OutputParser;
  readonly #markers = new Map<number, Marker>();
  #decoder: StreamDecoder | undefined;

  constructor(tokenizer: Tokenizer | undefined, parse: ParseOptions | undefined, stop: readonly string[]) {
    this.#tokenizer = tokenizer;
    const options = parse ?? unstructured;
    this.#parser = new OutputParser({ ...options, stop: [...options.stop, ...stop] });
    this.#decoder = tokenizer?.createDecoder();
    if (parse === undefined || tokenizer === undefined) return;
    for (const marker of [endOfThinking, dsml] as const) {
      const id = tokenizer.tokenId(marker);
      if (id !== undefined) this.#markers.set(id, marker);
    }
  }

  get isDone(): boolean {
    return this.#parser.isDone;
  }

  /** Where the text of the next token belongs. */
  get section(): OutputParser["section"] {
    return this.#parser.section;
  }

  /** The stop string that ended the content, once one has. */
  get stopString(): string | undefined {
    return this.#parser.stopString;
  }

  push(id: number): Delta[] {
    const marker = this.#markers.get(id);
    if (marker === undefined) return this.#parser.pushPlain(this.#decoder?.push(id) ?? "");
    const before = this.#parser.pushPlain(this.#decoder?.end() ?? "");
    this.#decoder = this.#tokenizer?.createDecoder();
    return [...before, ...this.#parser.pushMarker(marker)];
  }

  end(finish: FinishReason): { deltas: Delta[]; message: ParsedMessage } {
    const before = this.#parser.pushPlain(this.#decoder?.end() ?? "");
    const { deltas, message } = this.#parser.end(finish);
    return { deltas: [...before, ...deltas], message };
  }
}
