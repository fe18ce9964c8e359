/**
 * Stop strings found in text that comes in pieces (Aho & Corasick 1975). Text that may still become part of a stop string is
 * held back, as little as possible; what follows a stop string is dropped with it. The one that is complete first wins, of
 * several complete at once the one listed first.
 */
import { RequestError } from "../errors.ts";

const maxStops = 128;
const maxStopLength = 4096;

interface Node {
  readonly depth: number;
  readonly next: Map<number, Node>;
  fail: Node | undefined;
  /** The stop that is complete here: the first listed of those that end here. */
  stop: number | undefined;
}

export interface StopResult {
  /** Text that is certainly not part of a stop string. */
  readonly text: string;
  /** The stop string that ended the text. */
  readonly stopped: string | undefined;
}

export class StopStrings {
  readonly #stops: readonly string[];
  readonly #root: Node;
  #node: Node;
  #held = "";
  #stopped = false;

  /** Throws a RequestError for an empty stop string, too many or too long ones. */
  constructor(stops: readonly string[]) {
    if (stops.length > maxStops) throw refuse(`There are ${stops.length} stop strings`, `Give at most ${maxStops}`);
    for (const stop of stops) {
      if (stop === "") throw refuse("A stop string is empty", "Leave it out");
      if (stop.length > maxStopLength)
        throw refuse("A stop string is too long", `Give at most ${maxStopLength} characters`);
    }
    this.#stops = stops;
    this.#root = buildAutomaton(stops);
    this.#node = this.#root;
  }

  /** Text held back so far. */
  get held(): string {
    return this.#held;
  }

  push(text: string): StopResult {
    if (this.#stopped) return { text: "", stopped: undefined };
    if (this.#stops.length === 0) return { text, stopped: undefined };
    let node = this.#node;
    for (let i = 0; i < text.length; i++) {
      node = step(node, text.charCodeAt(i));
      if (node.stop === undefined) continue;
      this.#stopped = true;
      const stop = this.#stops[node.stop]!;
      const all = this.#held + text.slice(0, i + 1);
      this.#held = "";
      return { text: all.slice(0, all.length - stop.length), stopped: stop };
    }
    this.#node = node;
    // The depth of the state is the length of the longest suffix that may still become a stop string.
    const all = this.#held + text;
    this.#held = all.slice(all.length - node.depth);
    return { text: all.slice(0, all.length - node.depth), stopped: undefined };
  }

  /** Gives up what is held back: the text ends here, or what follows is no text. */
  flush(): string {
    const text = this.#held;
    this.#held = "";
    this.#node = this.#root;
    return text;
  }
}

function refuse(message: string, hint: string): RequestError {
  return new RequestError(message, { code: "stop", where: "stop", hint });
}

function newNode(depth: number): Node {
  return { depth, next: new Map(), fail: undefined, stop: undefined };
}

function buildAutomaton(stops: readonly string[]): Node {
  const root = newNode(0);
  stops.forEach((stop, index) => {
    let node = root;
    for (let i = 0; i < stop.length; i++) {
      const unit = stop.charCodeAt(i);
      const child = node.next.get(unit) ?? newNode(node.depth + 1);
      node.next.set(unit, child);
      node = child;
    }
    node.stop ??= index;
  });
  const queue = [root];
  for (const node of queue) {
    for (const [unit, child] of node.next) {
      child.fail = node.fail === undefined ? root : step(node.fail, unit);
      const inherited = child.fail.stop;
      if (inherited !== undefined && (child.stop === undefined || inherited < child.stop)) child.stop = inherited;
      queue.push(child);
    }
  }
  return root;
}

function step(from: Node, unit: number): Node {
  let node: Node | undefined = from;
  let root = from;
  while (node !== undefined) {
    const child = node.next.get(unit);
    if (child !== undefined) return child;
    root = node;
    node = node.fail;
  }
  return root;
}
