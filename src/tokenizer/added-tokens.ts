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

  /** Calls back for each stretch of `text`: plain text, or an added token with its id. */
  split(text: string, plain: (text: string) => void, token: (id: number) => void): void {
    let done = 0;
    for (let at = 0; at < text.length; ) {
      const found = this.#longestAt(text, at);
      if (found === undefined) {
        at++;
        continue;
      }
      if (done < at) plain(text.slice(done, at));
      token(found.id);
      at = found.end;
      done = at;
    }
    if (done < text.length) plain(text.slice(done));
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
