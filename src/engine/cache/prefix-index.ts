/**
 * A radix tree of token sequences, one for each namespace: which remembered sequences begin like a prompt. Edges hold stretches of
 * tokens; a node with a value ends a remembered sequence.
 */

export interface PrefixNode<T> {
  /** Tokens from the root to the end of this node. */
  readonly depth: number;
  readonly value: T | undefined;
  readonly parent: PrefixNode<T> | undefined;
}

/** Tokens of the longest remembered sequence that a node's begins with; 0 without one. */
export function depthBefore<T>({ parent }: PrefixNode<T>): number {
  let node = parent;
  while (node !== undefined && node.value === undefined) node = node.parent;
  return node?.depth ?? 0;
}

interface Node<T> {
  edge: Int32Array;
  depth: number;
  value: T | undefined;
  parent: Node<T> | undefined;
  readonly children: Map<number, Node<T>>;
}

export interface PrefixMatch<T> {
  /** Tokens of the prompt that are in the tree. */
  readonly depth: number;
  /** Remembered sequences that are a beginning of the prompt, the longest first. */
  readonly whole: readonly PrefixNode<T>[];
  /** Remembered sequences that share `depth` tokens with the prompt and then go on, or differ. */
  readonly longer: Iterable<PrefixNode<T>>;
}

export class PrefixIndex<T> {
  readonly #roots = new Map<string, Node<T>>();

  match(namespace: string, tokenIds: ArrayLike<number>): PrefixMatch<T> {
    const root = this.#roots.get(namespace);
    if (root === undefined) return { depth: 0, whole: [], longer: [] };
    const whole: PrefixNode<T>[] = [];
    let node = root;
    for (;;) {
      if (node.value !== undefined) whole.unshift(node);
      const child = node.children.get(tokenIds[node.depth]!);
      if (child === undefined) return { depth: node.depth, whole, longer: below(node) };
      const depth = node.depth + commonLength(child.edge, tokenIds, node.depth);
      if (depth < child.depth) return { depth, whole, longer: [child, ...below(child)].filter(hasValue) };
      node = child;
    }
  }

  /** Undefined when exactly these tokens are not remembered. */
  get(namespace: string, tokenIds: ArrayLike<number>): T | undefined {
    const [found] = this.match(namespace, tokenIds).whole;
    return found?.depth === tokenIds.length ? found.value : undefined;
  }

  set(namespace: string, tokenIds: ArrayLike<number>, value: T): PrefixNode<T> {
    let node = this.#roots.get(namespace);
    if (node === undefined) {
      node = makeNode<T>(new Int32Array(0), undefined);
      this.#roots.set(namespace, node);
    }
    while (node.depth < tokenIds.length) {
      const child: Node<T> | undefined = node.children.get(tokenIds[node.depth]!);
      node =
        child === undefined ? addLeaf(node, tokenIds) : splitAt(child, commonLength(child.edge, tokenIds, node.depth));
    }
    node.value = value;
    return node;
  }

  delete(namespace: string, tokenIds: ArrayLike<number>): void {
    let node = this.#roots.get(namespace);
    while (node !== undefined && node.depth < tokenIds.length) {
      const child: Node<T> | undefined = node.children.get(tokenIds[node.depth]!);
      if (child === undefined || commonLength(child.edge, tokenIds, node.depth) < child.edge.length) return;
      node = child;
    }
    if (node?.depth !== tokenIds.length) return;
    node.value = undefined;
    for (let empty = node; empty.value === undefined; ) {
      const { parent, children } = empty;
      if (parent === undefined) {
        if (children.size === 0) this.#roots.delete(namespace);
        return;
      }
      if (children.size > 1) return;
      if (children.size === 1) {
        joinWithChild(empty);
        return;
      }
      parent.children.delete(empty.edge[0]!);
      empty = parent;
    }
  }

  /** Values of a namespace. */
  values(namespace: string): T[] {
    const root = this.#roots.get(namespace);
    return root === undefined
      ? []
      : [root, ...nodesBelow(root)].flatMap(({ value }) => (value === undefined ? [] : [value]));
  }

  /** Nodes of all trees, for tests: a tree without values has none. */
  get size(): number {
    return [...this.#roots.values()].reduce((sum, root) => sum + [...nodesBelow(root)].length, 0);
  }
}

/** At most this many sequences beside a prompt are looked at: any of them that reaches as far is as good. */
const mostLonger = 64;

function below<T>(node: Node<T>): PrefixNode<T>[] {
  const found: PrefixNode<T>[] = [];
  for (const each of nodesBelow(node)) {
    if (each.value !== undefined) found.push(each);
    if (found.length >= mostLonger) break;
  }
  return found;
}

/** The nearest first. */
function* nodesBelow<T>(node: Node<T>): Generator<Node<T>> {
  const waiting = [node];
  for (let i = 0; i < waiting.length; i++) {
    for (const child of waiting[i]!.children.values()) {
      yield child;
      waiting.push(child);
    }
  }
}

function hasValue<T>({ value }: PrefixNode<T>): boolean {
  return value !== undefined;
}

/** Tokens of an edge that a sequence has from `offset` on. */
function commonLength(edge: Int32Array, tokenIds: ArrayLike<number>, offset: number): number {
  const most = Math.min(edge.length, tokenIds.length - offset);
  let length = 0;
  while (length < most && edge[length] === tokenIds[offset + length]) length++;
  return length;
}

function makeNode<T>(edge: Int32Array, parent: Node<T> | undefined): Node<T> {
  return { edge, depth: (parent?.depth ?? 0) + edge.length, value: undefined, parent, children: new Map() };
}

function addLeaf<T>(parent: Node<T>, tokenIds: ArrayLike<number>): Node<T> {
  const edge = new Int32Array(tokenIds.length - parent.depth);
  for (let i = 0; i < edge.length; i++) edge[i] = tokenIds[parent.depth + i]!;
  const leaf = makeNode(edge, parent);
  parent.children.set(edge[0]!, leaf);
  return leaf;
}

/** The node after `length` tokens of an edge; the edge is cut in two unless that is its end. */
function splitAt<T>(child: Node<T>, length: number): Node<T> {
  if (length === child.edge.length) return child;
  const parent = child.parent!;
  const middle = makeNode(child.edge.slice(0, length), parent);
  parent.children.set(middle.edge[0]!, middle);
  child.edge = child.edge.slice(length);
  child.parent = middle;
  middle.children.set(child.edge[0]!, child);
  return middle;
}

/** A node without a value and with one child is no node. */
function joinWithChild<T>(node: Node<T>): void {
  const [child] = node.children.values();
  const edge = new Int32Array(node.edge.length + child!.edge.length);
  edge.set(node.edge);
  edge.set(child!.edge, node.edge.length);
  child!.edge = edge;
  child!.parent = node.parent;
  node.parent!.children.set(edge[0]!, child!);
}
