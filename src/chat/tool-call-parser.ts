/**
 * Tool calls in DSML, as they come: `<｜DSML｜invoke name="NAME">`, parameters, closing tags, of both V4 (`tool_calls`,
 * `invoke`) and V4.1 (` calls`, ` invoke`). A few fixed spellings are searched, and everything between them is skipped, so
 * that misspelled wrappers do no harm. Arguments grow into one JSON object text; once a call is complete they are valid JSON.
 */
import { isJson } from "../json/is-json.ts";
import type { Delta } from "./output-parser.ts";

type State = "seekCall" | "callName" | "seekParameter" | "parameterName" | "attributes" | "value" | "done";
/** Values are strings, JSON, or what they turn out to be where the tag does not say. */
type ValueKind = "string" | "json" | "either";

export interface CallSoFar {
  readonly id: string;
  readonly name: string;
  arguments: string;
}

const callOpener = 'invoke name="';
const blockEnds = ["tool_calls>", " calls>"];
const parameterOpeners: readonly { readonly spelling: string; readonly kind: ValueKind | undefined }[] = [
  { spelling: 'parameter name="', kind: undefined },
  { spelling: 'parameter string="true" name="', kind: "string" },
  { spelling: 'parameter string="false" name="', kind: "json" },
];
const longestOpener = Math.max(callOpener.length, ...parameterOpeners.map(({ spelling }) => spelling.length));

export class ToolCallParser {
  readonly calls: CallSoFar[] = [];
  readonly #newId: (index: number) => string;
  #state: State = "seekCall";
  #buffer = "";
  /** The text directly behind a `</` marker, as long as it may be the end of the block. */
  #closing: string | undefined;
  #name = "";
  #attributes = "";
  #kind: ValueKind | undefined;
  #value = "";
  #parameters = 0;

  constructor(newId: (index: number) => string) {
    this.#newId = newId;
  }

  /** True once the closing tag of the block was seen: the rest of the output counts for nothing. */
  get isDone(): boolean {
    return this.#state === "done";
  }

  text(text: string, out: Delta[]): void {
    if (this.#closing !== undefined) this.#matchBlockEnd(text);
    if (this.#state === "done") return;
    this.#buffer += text;
    while (this.#advance(out));
  }

  /** The DSML marker, in a tag or in a value. */
  dsml(spelling: string, out: Delta[]): void {
    const closes = this.#buffer.endsWith("</");
    switch (this.#state) {
      case "callName":
      case "parameterName":
      case "attributes":
        this.text(spelling, out);
        return;
      case "value":
        if (!closes) {
          this.text(spelling, out);
          return;
        }
        this.#addValue(this.#buffer.slice(0, -2), out);
        this.#endValue(out);
        break;
      case "seekParameter":
        if (closes) this.#endCall(out);
        break;
      case "seekCall":
      case "done":
        break;
      default:
        this.#state satisfies never;
    }
    this.#buffer = "";
    this.#closing = closes ? "" : undefined;
  }

  /** The output is over: what is held back belongs to the value it stands in. */
  end(out: Delta[]): void {
    if (this.#state !== "value") return;
    this.#addValue(this.#buffer, out);
    this.#buffer = "";
    if (this.#kind !== "string") this.#append(this.#value, out);
  }

  /** Whether the output may end here: after the block, or at least not within a call. */
  get isComplete(): boolean {
    return this.#state === "done" || (this.#state === "seekCall" && this.calls.length > 0);
  }

  #matchBlockEnd(text: string): void {
    const closing = this.#closing! + text.slice(0, 16);
    if (blockEnds.some((end) => closing.startsWith(end)) && this.#state === "seekCall") this.#state = "done";
    const mayCome = blockEnds.some((end) => end.startsWith(closing));
    this.#closing = mayCome ? closing : undefined;
  }

  /** Uses up the front of the buffer; false when more text is needed. */
  #advance(out: Delta[]): boolean {
    switch (this.#state) {
      case "seekCall":
        return this.#seek(callOpener, () => {
          this.#state = "callName";
          this.#name = "";
        });
      case "callName":
        return this.#readName(() => {
          this.#startCall(out);
        });
      case "seekParameter":
        return this.#seekParameter();
      case "parameterName":
        return this.#readName(() => {
          this.#append(`${this.#parameters++ === 0 ? "{" : ", "}${JSON.stringify(this.#name)}: `, out);
          this.#attributes = "";
          this.#state = "attributes";
        });
      case "attributes":
        return this.#readAttributes(out);
      case "value":
        return this.#readValue(out);
      case "done":
        this.#buffer = "";
        return false;
      default:
        return this.#state satisfies never;
    }
  }

  #seek(spelling: string, found: () => void): boolean {
    const at = this.#buffer.indexOf(spelling);
    if (at < 0) {
      this.#buffer = this.#buffer.slice(-longestOpener);
      return false;
    }
    this.#buffer = this.#buffer.slice(at + spelling.length);
    found();
    return true;
  }

  #seekParameter(): boolean {
    const [first] = parameterOpeners
      .map((opener) => ({ ...opener, at: this.#buffer.indexOf(opener.spelling) }))
      .filter(({ at }) => at >= 0)
      .sort((a, b) => a.at - b.at);
    if (first === undefined) {
      this.#buffer = this.#buffer.slice(-longestOpener);
      return false;
    }
    this.#buffer = this.#buffer.slice(first.at + first.spelling.length);
    this.#kind = first.kind;
    this.#name = "";
    this.#state = "parameterName";
    return true;
  }

  /** Names run to the next quotation mark. */
  #readName(found: () => void): boolean {
    const end = this.#buffer.indexOf('"');
    this.#name += end < 0 ? this.#buffer : this.#buffer.slice(0, end);
    this.#buffer = end < 0 ? "" : this.#buffer.slice(end + 1);
    if (end < 0) return false;
    found();
    return true;
  }

  #startCall(out: Delta[]): void {
    const index = this.calls.length;
    const call = { id: this.#newId(index), name: this.#name, arguments: "" };
    this.calls.push(call);
    out.push({ type: "toolCall", index, id: call.id, name: call.name });
    this.#parameters = 0;
    this.#state = "seekParameter";
  }

  #readAttributes(out: Delta[]): boolean {
    const end = this.#buffer.indexOf(">");
    this.#attributes += end < 0 ? this.#buffer : this.#buffer.slice(0, end);
    this.#buffer = end < 0 ? "" : this.#buffer.slice(end + 1);
    if (end < 0) return false;
    this.#kind ??= this.#attributes.includes('string="true')
      ? "string"
      : this.#attributes.includes('string="false')
        ? "json"
        : "either";
    this.#value = "";
    this.#state = "value";
    if (this.#kind === "string") this.#append('"', out);
    return true;
  }

  #readValue(out: Delta[]): boolean {
    // What may become a closing tag, or half a character, waits for more.
    const held = /<\/$/.test(this.#buffer) ? 2 : /[<\ud800-\udbff]$/.test(this.#buffer) ? 1 : 0;
    this.#addValue(this.#buffer.slice(0, this.#buffer.length - held), out);
    this.#buffer = this.#buffer.slice(this.#buffer.length - held);
    return false;
  }

  #addValue(text: string, out: Delta[]): void {
    if (this.#kind === "string") this.#append(JSON.stringify(text).slice(1, -1), out);
    else this.#value += text; // whether it is JSON shows only at its end
  }

  #endValue(out: Delta[]): void {
    if (this.#kind === "string") this.#append('"', out);
    else this.#append(isJson(this.#value) ? this.#value : JSON.stringify(this.#value), out);
    this.#state = "seekParameter";
  }

  #endCall(out: Delta[]): void {
    this.#append(this.#parameters === 0 ? "{}" : "}", out);
    this.#state = "seekCall";
  }

  #append(text: string, out: Delta[]): void {
    if (text === "") return;
    const index = this.calls.length - 1;
    this.calls[index]!.arguments += text;
    out.push({ type: "toolArguments", index, text });
  }
}
