/** The two markers that structure a model's output. As tokens they are certain; spelled out in text they count in text mode. */
export const endOfThinking = "</think>";
export const dsml = "｜DSML｜";

export type Marker = typeof endOfThinking | typeof dsml;

/** Finds spelled markers in text that comes in pieces. */
export class MarkerFinder {
  #held = "";

  /** Calls back for text and markers in their order; holds back what may become a marker. */
  push(piece: string, text: (text: string) => void, marker: (marker: Marker) => void): void {
    let rest = this.#held + piece;
    for (;;) {
      const found = [endOfThinking, dsml]
        .map((spelling) => ({ spelling: spelling as Marker, at: rest.indexOf(spelling) }))
        .filter(({ at }) => at >= 0)
        .sort((a, b) => a.at - b.at)[0];
      if (found === undefined) break;
      if (found.at > 0) text(rest.slice(0, found.at));
      marker(found.spelling);
      rest = rest.slice(found.at + found.spelling.length);
    }
    const keep = Math.max(partialLength(rest, endOfThinking), partialLength(rest, dsml));
    this.#held = rest.slice(rest.length - keep);
    if (keep < rest.length) text(rest.slice(0, rest.length - keep));
  }

  flush(): string {
    const held = this.#held;
    this.#held = "";
    return held;
  }
}

/** The length of the longest suffix of `text` that is a proper prefix of `pattern`. */
export function partialLength(text: string, pattern: string): number {
  for (let length = Math.min(pattern.length - 1, text.length); length > 0; length--) {
    if (pattern.startsWith(text.slice(text.length - length))) return length;
  }
  return 0;
}
