/**
 * Finds the JSON in content that should be nothing but JSON: from the first bracket on, or what stands in the first code
 * fence. Text around it is dropped.
 */
import { partialLength } from "./markers.ts";

const openers: readonly { readonly spelling: string; readonly isFence: boolean }[] = [
  { spelling: "```json\n", isFence: true },
  { spelling: "```\n", isFence: true },
  { spelling: "{", isFence: false },
  { spelling: "[", isFence: false },
];
const closer = "\n```";

export class JsonFence {
  #state: "before" | "inside" | "after" = "before";
  #held = "";
  #endsWithBracket = false;

  get isInside(): boolean {
    return this.#state === "inside";
  }

  /** Whether the text so far ends in `<` where a call may open: not within the JSON. */
  get endsWithBracket(): boolean {
    return this.#endsWithBracket && this.#state !== "inside";
  }

  /** Adds text; returns what is certainly JSON. */
  push(text: string): string {
    if (text !== "") this.#endsWithBracket = text.endsWith("<");
    switch (this.#state) {
      case "before":
        return this.#seek(this.#held + text);
      case "inside":
        return this.#inside(this.#held + text);
      default:
        return "";
    }
  }

  /** The output is over: what is held within the JSON belongs to it. */
  flush(): string {
    const held = this.#state === "inside" ? this.#held : "";
    this.#held = "";
    return held;
  }

  #seek(text: string): string {
    const [first] = openers
      .map((opener) => ({ ...opener, at: text.indexOf(opener.spelling) }))
      .filter(({ at }) => at >= 0)
      .sort((a, b) => a.at - b.at);
    if (first === undefined) {
      const keep = Math.max(...openers.map(({ spelling }) => partialLength(text, spelling)));
      this.#held = text.slice(text.length - keep);
      return "";
    }
    this.#state = "inside";
    this.#held = "";
    return this.#inside(text.slice(first.at + (first.isFence ? first.spelling.length : 0)));
  }

  #inside(text: string): string {
    const end = text.indexOf(closer);
    if (end >= 0) {
      this.#state = "after";
      this.#held = "";
      return text.slice(0, end);
    }
    const keep = partialLength(text, closer);
    this.#held = text.slice(text.length - keep);
    return text.slice(0, text.length - keep);
  }
}
