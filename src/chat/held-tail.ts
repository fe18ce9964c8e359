/**
 * The end of a text that a marker behind it would take away: a run of newlines, and behind it a `<` where one could begin a
 * call. Everything before is let through at once. Newlines are counted, not kept, so a long run costs nothing.
 */
export class HeldTail {
  readonly #holdsBracket: boolean;
  #newlines = 0;
  #bracket = false;

  constructor(holdsBracket: boolean) {
    this.#holdsBracket = holdsBracket;
  }

  /** Adds text; returns what is certain. */
  push(text: string): string {
    if (text === "") return "";
    const bracket = this.#holdsBracket && text.endsWith("<");
    const end = text.length - (bracket ? 1 : 0);
    let start = end;
    while (start > 0 && text[start - 1] === "\n") start--;
    if (start === 0 && !this.#bracket) {
      this.#newlines += end;
      this.#bracket = bracket;
      return "";
    }
    const certain = this.flush() + text.slice(0, start);
    this.#newlines = end - start;
    this.#bracket = bracket;
    return certain;
  }

  get endsWithBracket(): boolean {
    return this.#bracket;
  }

  /** The held text, as text. */
  flush(): string {
    const text = "\n".repeat(this.#newlines) + (this.#bracket ? "<" : "");
    this.drop();
    return text;
  }

  /** The held text is part of a marker. */
  drop(): void {
    this.#newlines = 0;
    this.#bracket = false;
  }
}
