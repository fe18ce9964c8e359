/**
 * From the output of a model to reasoning, content and tool calls, as it comes. The result does not depend on how the output
 * is cut into pieces. Fed with tokens, only the tokens `</think>` and `｜DSML｜` are markers, and the same characters from
 * ordinary tokens are text; fed with text, every spelling counts.
 *   const parser = new OutputParser(prompt.parse);
 *   for (const piece of pieces) show(parser.pushText(piece));  const { message } = parser.end("stop");
 */
import { HeldTail } from "./held-tail.ts";
import { JsonFence } from "./json-fence.ts";
import { dsml, endOfThinking, type Marker, MarkerFinder } from "./markers.ts";
import { StopStrings } from "./stop-strings.ts";
import { type CallSoFar, ToolCallParser } from "./tool-call-parser.ts";

/** In which state a model's answer begins, given its prompt. */
export interface ParseOptions {
  /** A continuation goes on with text of the prompt: its leading newlines are kept. */
  readonly start: "reasoning" | "content" | "contentContinuation" | "reasoningContinuation";
  /** Tools are in force: `<` followed by the DSML token opens calls. */
  readonly toolCalls: boolean;
  /** The prompt ends within a block of calls. */
  readonly inToolCalls: boolean;
  /** The content is one JSON value, perhaps in a code fence: what is around it is dropped. */
  readonly json: boolean;
  /** Strings that end the content. */
  readonly stop: readonly string[];
}

export type Delta =
  | { readonly type: "reasoning"; readonly text: string }
  | { readonly type: "content"; readonly text: string }
  | { readonly type: "toolCall"; readonly index: number; readonly id: string; readonly name: string }
  | { readonly type: "toolArguments"; readonly index: number; readonly text: string };

export type FinishReason = "stop" | "length" | "tool_calls" | "content_filter";

export interface ParsedMessage {
  readonly reasoning: string;
  readonly content: string;
  readonly toolCalls: readonly Readonly<CallSoFar>[];
  readonly finish: FinishReason;
  /** False when the output ended within reasoning or a call. */
  readonly complete: boolean;
}

type State = "reasoning" | "content" | "json" | "calls" | "done";

export class OutputParser {
  readonly #options: ParseOptions;
  readonly #calls: ToolCallParser;
  readonly #stops: StopStrings;
  readonly #tail: HeldTail;
  readonly #markers = new MarkerFinder();
  readonly #fence = new JsonFence();
  #state: State;
  /** Newlines at the start of reasoning and of content are dropped. */
  #atStart: boolean;
  #reasoning = "";
  #content = "";
  #stopString: string | undefined;

  /** `newId` makes the id of a call; they sort by age, so that re-ordering by id changes nothing. */
  constructor(options: ParseOptions, newId: (index: number) => string = randomCallId) {
    this.#options = options;
    this.#calls = new ToolCallParser(newId);
    this.#stops = new StopStrings(options.stop);
    this.#tail = new HeldTail(options.toolCalls);
    this.#atStart = options.start === "reasoning" || options.start === "content";
    this.#state = options.inToolCalls
      ? "calls"
      : options.start.startsWith("reasoning")
        ? "reasoning"
        : this.#contentState();
  }

  /** The stop string that ended the content, once one has. */
  get stopString(): string | undefined {
    return this.#stopString;
  }

  /** Where the next text belongs. */
  get section(): "reasoning" | "content" | "calls" | "done" {
    return this.#state === "json" ? "content" : this.#state;
  }

  /** Nothing that follows can change the message. */
  get isDone(): boolean {
    return this.#state === "done" || (this.#state === "calls" && this.#calls.isDone);
  }

  /** Text in which spelled markers count. */
  pushText(piece: string): Delta[] {
    const out: Delta[] = [];
    this.#markers.push(
      piece,
      (text) => this.#text(text, out),
      (marker) => this.#marker(marker, out),
    );
    return out;
  }

  /** Text of ordinary tokens: markers spelled in it are text. */
  pushPlain(text: string): Delta[] {
    const out: Delta[] = [];
    this.#text(text, out);
    return out;
  }

  /** A marker that came as its own token. */
  pushMarker(marker: Marker): Delta[] {
    const out: Delta[] = [];
    this.#marker(marker, out);
    return out;
  }

  /** The output is over; `finish` says why. Held text is given out, and the whole message. */
  end(finish: FinishReason): { deltas: Delta[]; message: ParsedMessage } {
    const out: Delta[] = [];
    this.#text(this.#markers.flush(), out);
    const complete = this.#state === "calls" ? this.#calls.isComplete : this.#state !== "reasoning";
    switch (this.#state) {
      case "reasoning":
        this.#addReasoning(this.#tail.flush(), out);
        break;
      case "content":
        this.#addContent(this.#tail.push(this.#stops.flush()) + this.#tail.flush(), out);
        break;
      case "json":
        this.#pushStops(this.#fence.flush(), out);
        this.#addContent(this.#stops.flush(), out);
        break;
      case "calls":
        this.#calls.end(out);
        break;
      case "done":
        break;
      default:
        this.#state satisfies never;
    }
    const reason = finish === "stop" && this.#calls.calls.length > 0 ? "tool_calls" : finish;
    const message: ParsedMessage = {
      reasoning: this.#reasoning,
      content: this.#content,
      toolCalls: this.#calls.calls,
      finish: reason,
      complete,
    };
    this.#state = "done";
    return { deltas: out, message };
  }

  #contentState(): State {
    return this.#options.json ? "json" : "content";
  }

  #text(text: string, out: Delta[]): void {
    switch (this.#state) {
      case "reasoning":
        this.#addReasoning(this.#tail.push(this.#withoutLeadingNewlines(text)), out);
        break;
      case "content": {
        const { text: certain, stopped } = this.#stops.push(this.#withoutLeadingNewlines(text));
        this.#addContent(this.#tail.push(certain), out);
        if (stopped !== undefined) this.#stop(stopped, this.#tail.flush(), out);
        break;
      }
      case "json":
        this.#pushStops(this.#fence.push(text), out);
        break;
      case "calls":
        this.#calls.text(text, out);
        break;
      case "done":
        break;
      default:
        this.#state satisfies never;
    }
  }

  #marker(marker: Marker, out: Delta[]): void {
    if (marker === endOfThinking) this.#endOfThinking(out);
    else this.#dsml(out);
  }

  #endOfThinking(out: Delta[]): void {
    switch (this.#state) {
      case "reasoning":
        // Newlines directly before the marker go; a `<` that came to nothing is text, and keeps those before it.
        if (this.#tail.endsWithBracket) this.#addReasoning(this.#tail.flush(), out);
        else this.#tail.drop();
        this.#state = this.#contentState();
        this.#atStart = true;
        break;
      case "content":
        this.#atStart = false; // swallowed; newlines around it stay
        break;
      case "json":
        if (this.#fence.isInside) this.#text(endOfThinking, out);
        break;
      case "calls":
        this.#calls.text(endOfThinking, out);
        break;
      case "done":
        break;
      default:
        this.#state satisfies never;
    }
  }

  #dsml(out: Delta[]): void {
    if (this.#state === "done") return;
    if (this.#state === "calls") {
      this.#calls.dsml(dsml, out);
      return;
    }
    const opens = this.#options.toolCalls && this.#endsWithBracket();
    if (!opens) {
      this.#text(dsml, out);
      return;
    }
    if (this.#state === "content") this.#addContent(this.#tail.push(this.#stops.flush()), out);
    this.#tail.drop(); // the newlines before the opener, and its `<`
    this.#state = "calls";
    this.#atStart = false;
  }

  /** Whether the text so far ends in `<`, wherever its end is held. */
  #endsWithBracket(): boolean {
    if (this.#state === "json") return this.#fence.endsWithBracket;
    const { held } = this.#stops;
    return held === "" ? this.#tail.endsWithBracket : held.endsWith("<");
  }

  #pushStops(text: string, out: Delta[]): void {
    const { text: certain, stopped } = this.#stops.push(text);
    this.#addContent(certain, out);
    if (stopped !== undefined) this.#stop(stopped, "", out);
  }

  #stop(stopString: string, rest: string, out: Delta[]): void {
    this.#addContent(rest, out);
    this.#stopString = stopString;
    this.#state = "done";
  }

  #withoutLeadingNewlines(text: string): string {
    if (!this.#atStart) return text;
    let start = 0;
    while (text[start] === "\n") start++;
    if (start < text.length) this.#atStart = false;
    return text.slice(start);
  }

  #addReasoning(text: string, out: Delta[]): void {
    if (text === "") return;
    this.#reasoning += text;
    out.push({ type: "reasoning", text });
  }

  #addContent(text: string, out: Delta[]): void {
    if (text === "") return;
    this.#content += text;
    out.push({ type: "content", text });
  }
}

function randomCallId(index: number): string {
  const random = [...crypto.getRandomValues(new Uint8Array(9))]
    .map((byte) => byte.toString(36).padStart(2, "0"))
    .join("");
  return `call_${String(index).padStart(2, "0")}_${random.slice(0, 16)}`;
}
