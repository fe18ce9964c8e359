/**
 * Tokens that were added to the vocabulary by their whole spelling, found in text: leftmost first, the longest of those that
 * begin at one place. A tree over UTF-16 units, so that the search is linear whatever the text repeats.
 */
export interface AddedToken {
  readonly id: number;
  readonly content: string;
  /** Left out of decoded text when special tokens are skipped. */
  readonly special: boolean;
  /** Searched after the others: in the text between them. */
  readonly normalized: boolean;
}

/** Places in a text that are searched before a pause: a millisecond or two. */
const searchedAtOnce = 65_536;

interface Node {
  readonly children: Map<number, Node>;
  id: number | undefined;
}

export class AddedTokenFinder {
  readonly #root: Node = { children: new Map(), id: undefined };

  constructor(tokens: readonly AddedToken[]) {
    for (const { content, id } of tokens) {
      let node = this.#root;
      for (let i = 0; i < content.length; i++) {
        const unit = content.charCodeAt(i);
        let child = node.children.get(unit);
        if (child === undefined) {
          child = { children: new Map(), id: undefined };
          node.children.set(unit, child);
        }
        node = child;
      }
      node.id ??= id;
    }
  }

  /** The stretches of a text in turn: plain text, or the id of an added token; undefined where a long search may pause. */
  *split(text: string): Generator<string | number | undefined, void> {
    let done = 0;
    for (let at = 0, untilPause = searchedAtOnce; at < text.length; untilPause--) {
      if (untilPause === 0) {
        yield undefined;
        untilPause = searchedAtOnce;
      }
      const found = this.#longestAt(text, at);
      if (found === undefined) {
        at++;
        continue;
      }
      if (done < at) yield text.slice(done, at);
      yield found.id;
      at = found.end;
      done = at;
    }
    if (done < text.length) yield text.slice(done);
  }

  #longestAt(text: string, at: number): { id: number; end: number } | undefined {
    let node = this.#root;
    let found: { id: number; end: number } | undefined;
    for (let end = at; end < text.length; ) {
      const child = node.children.get(text.charCodeAt(end));
      if (child === undefined) break;
      node = child;
      end++;
      if (node.id !== undefined) found = { id: node.id, end };
    }
    return found;
  }
}
