/**
 * Commands: what the kernels in C are told to do, a row of doubles each: number of the op, whether all workers must meet first, the
 * set of cursors that share out its work, then the op's own slots. Most ops are one command (op-slots.ts); products quantise their
 * activations first, and experts take three commands.
 */

import { DeviceError } from "../../errors.ts";
import type { GraphNode, Tensor } from "../../tensor/graph.ts";
import type { ExpertsAttributes } from "../../tensor/ops/experts.ts";
import type { LinearAttributes } from "../../tensor/ops/linear.ts";
import { countElements } from "../../tensor/shape.ts";
import { hasBlocks } from "./matrix-formats.ts";
import {
  matrixSlots,
  type OpName,
  opNames,
  type PlacedMatrix,
  type Placement,
  roundingSlots,
  type Span,
  slotsOf,
} from "./op-slots.ts";

export const commandSlots = 56;
export const commandBytes = 8 * commandSlots;
const cursorSets = 32;
/** Weights of this many rows are worked on together: TILE in kernels/base.h. */
export const tile = 16;
/** Tokens that a worker multiplies a tile of weights with before it goes on, where there are few rows and many tokens. */
const tokensOfPart = 128;

/** Rows of int8 blocks that lie next to each other, block by block, in steps of several tokens: TOGETHER in kernels/activations.h. */
const rowsTogether = 16;

const together = (tokens: number) => (tokens === 1 ? 1 : rowsTogether);

/** A tensor's rows in int8 blocks. */
interface Quantized {
  readonly span: Span;
  readonly columns: number;
  readonly bytes: number;
  readonly scales: number;
  readonly sums: number;
}

const quantizedAt = ({ address, bytes }: Span, rows: number, columns: number): Quantized => {
  const scales = address + rows * columns;
  return { span: { address, bytes }, columns, bytes: address, scales, sums: scales + (rows * columns) / 8 };
};

export class CommandWriter {
  readonly #place: Placement;
  readonly #rows: number[][] = [];
  #read: Span[] = [];
  #written: Span[] = [];
  #sinceBarrier = 0;
  /** The last product that fetches what the next one reads, and the slot that says how many commands on that is. */
  #product: { readonly command: number; readonly slot: number } | undefined;
  /** The tensors that are in int8 blocks already. */
  readonly #quantized = new Map<object, Quantized>();

  constructor(place: Placement) {
    this.#place = place;
  }

  /** All commands, one behind another. */
  finish(): Float64Array {
    const all = new Float64Array(this.#rows.length * commandSlots);
    for (const [i, row] of this.#rows.entries()) all.set(row, i * commandSlots);
    return all;
  }

  /** Tells the last product that the command just written is the next one: what it reads first is fetched in time. */
  #lead(): void {
    if (this.#product === undefined) return;
    const { command, slot } = this.#product;
    this.#rows[command]![slot] = this.#rows.length - 1 - command;
  }

  /** The command just written is a product whose slot shall say where the next one is. */
  #follow(slot: number): void {
    this.#product = { command: this.#rows.length - 1, slot };
  }

  get count(): number {
    return this.#rows.length;
  }

  /** Writes the commands of one node of the graph. */
  node(node: GraphNode): void {
    const { op, inputs, outputs } = node;
    const [first] = outputs as [Tensor];
    const isEmpty = (tensor: Tensor) => countElements(this.#place.shape(tensor)) === 0;
    if (outputs.every(isEmpty) || (op.name === "writeRows" && isEmpty(inputs[1]!))) return;
    if (op.name === "linear") this.#linear(inputs, first, 1, (node.attributes as LinearAttributes).inAnyOrder);
    else if (op.name === "groupedLinear") this.#linear(inputs, first, this.#place.shape(inputs[0]!)[1]!);
    else if (op.name === "experts") this.#experts(node, first);
    else {
      const [name, slots] = slotsOf(node, this.#place);
      this.#add(name, slots, inputs, outputs);
    }
  }

  #linear([x, weight]: readonly Tensor[], y: Tensor, groups: number, inAnyOrder = false): void {
    const matrix = this.#place.matrix(weight!);
    const tokens = countElements(this.#place.shape(x!).slice(0, -1)) / groups;
    const activations = this.#activations(x!, matrix, matrix.columns * groups);
    const tiles = Math.ceil(matrix.rows / groups / tile) * groups;
    // Few rows and many tokens: the tokens are shared out too. Large steps are cut as well, so that x stays in the cache.
    const part = tiles < 4 * this.#place.workers ? roundUp(tokens / this.#place.workers, rowsTogether) : tokensOfPart;
    const slots = [
      ...matrixSlots(matrix, 0),
      ...activations.slots,
      tokens,
      this.#place.span(y).address,
      matrix.rows,
      groups,
      part,
      inAnyOrder ? 1 : 0,
      0,
    ];
    this.#add("linear", slots, [activations.span], [y]);
    this.#lead();
    this.#follow(25);
  }

  #experts(node: GraphNode, y: Tensor): void {
    const place = this.#place;
    const [x, chosen, weights, ...matrices] = node.inputs as [Tensor, Tensor, Tensor, Tensor, Tensor, Tensor];
    const { limit, roundsHidden } = node.attributes as ExpertsAttributes;
    const [tokens, k] = place.shape(chosen) as [number, number];
    const [g, u, d] = matrices.map((tensor) => place.matrix(tensor)) as [PlacedMatrix, PlacedMatrix, PlacedMatrix];
    const experts = g.parts.length;
    // gate and up share one form of x: in int8 only when both are in blocks
    const both = hasBlocks(g.format) && hasBlocks(u.format) ? g : { ...g, format: "F32" as const };
    const isInt8 = place.int8 && hasBlocks(both.format);
    const hiddenIsInt8 = place.int8 && hasBlocks(d.format) && !roundsHidden;
    const sizes = { tokens, k, experts, width: g.rows, gathered: isInt8 ? g.columns : 0, hiddenIsInt8 };
    const memory = expertsMemory(place.experts(node).address, sizes);
    const rows = place.int8 ? together(tokens) : 1;
    const route = [
      place.span(chosen).address,
      place.span(weights).address,
      tokens,
      k,
      experts,
      memory.first,
      memory.token,
      memory.weight,
      memory.place,
      rows,
      memory.active,
    ];
    this.#add("expertsRoute", route, [chosen, weights], [memory.lists]);
    const activations = this.#activations(x, both, g.columns);
    const lists = [memory.active, memory.first, memory.token, memory.place];
    let gathered = activations;
    if (rows > 1 && isInt8) {
      const { span, bytes, scales, sums } = memory.gathered;
      const copy = [bytes, scales, sums];
      this.#add("expertsGather", [...activations.slots, ...copy, ...lists], [activations.span, memory.lists], [span]);
      gathered = { slots: [activations.slots[0]!, ...copy, g.columns, rows], span };
    }
    const { span, bytes, scales, sums } = memory.hidden;
    const hidden = hiddenIsInt8 ? [0, bytes, scales, sums, d.columns, rows] : [bytes, 0, 0, 0, d.columns, rows];
    this.#product = undefined; // which experts' rows the next product reads is known only now
    this.#add(
      "expertsGateUp",
      [...expertSlots(g), ...expertSlots(u), ...gathered.slots, ...lists, limit, ...hidden, roundsHidden ? 2 : 1],
      [gathered.span, memory.lists],
      [span],
    );
    if (roundsHidden) {
      const slots = [bytes, memory.weight, memory.first, experts, memory.place, d.columns, ...roundingSlots("fp8")];
      this.#add("roundExpertRows", slots, [span, memory.lists], [span, memory.lists]);
    }
    this.#add(
      "expertsDown",
      [...expertSlots(d), ...hidden, ...lists, memory.weight, tokens, place.span(y).address, 0],
      [span, memory.lists],
      [y],
    );
    this.#follow(27);
  }

  /** Slots of activations, quantised first where the matrix is in blocks (once for all matrices that multiply them). */
  #activations(x: Tensor, { format }: PlacedMatrix, columns: number): { slots: number[]; span: Span } {
    const span = this.#place.span(x);
    if (!this.#place.int8 || !hasBlocks(format)) return { slots: [span.address, 0, 0, 0, columns, 1], span };
    const known = this.#quantized.get(x.storage);
    const value = known?.columns === columns ? known : this.#quantize(x, columns);
    return { slots: this.#slotsOf(x, value, columns), span: value.span };
  }

  #slotsOf(x: Tensor, { bytes, scales, sums }: Quantized, columns: number): number[] {
    const tokens = countElements(this.#place.shape(x)) / columns;
    return [this.#place.span(x).address, bytes, scales, sums, columns, together(tokens)];
  }

  #quantize(x: Tensor, columns: number): Quantized {
    const tokens = countElements(this.#place.shape(x)) / columns;
    const span = { address: this.#place.quantized(x, columns).address, bytes: quantizedBytes(tokens, columns) };
    const value = quantizedAt(span, roundUp(tokens, together(tokens)), columns);
    this.#quantized.set(x.storage, value);
    this.#add("quantize", [...this.#slotsOf(x, value, columns), tokens], [x], [span]);
    return value;
  }

  /** A barrier goes before a command that reads or writes what another wrote since the last one, or writes what another read. */
  #add(
    name: OpName,
    slots: readonly number[],
    reads: readonly (Tensor | Span)[],
    writes: readonly (Tensor | Span)[],
  ): void {
    const spanOf = (value: Tensor | Span) => ("address" in value ? value : this.#place.span(value));
    const read = reads.filter((value) => "address" in value || value.storage.kind !== "weight").map(spanOf);
    const written = writes.map(spanOf);
    const conflicts =
      this.#sinceBarrier === cursorSets - 1 ||
      overlap(read, this.#written) ||
      overlap(written, this.#written) ||
      overlap(written, this.#read);
    if (conflicts) {
      this.#read = [];
      this.#written = [];
      this.#sinceBarrier = 0;
    }
    this.#read.push(...read);
    this.#written.push(...written);
    this.#sinceBarrier++;
    if (slots.length + 3 > commandSlots) throw new DeviceError(`The command ${name} is too long`);
    this.#rows.push([opNames.indexOf(name), conflicts ? 1 : 0, this.#rows.length % cursorSets, ...slots]);
  }
}

/** One command that reads `bytes` of memory; `sums` has 64 bytes a worker. */
export function readMemoryCommand(address: number, bytes: number, sums: number): Float64Array {
  const row = new Float64Array(commandSlots);
  row.set([opNames.indexOf("readMemory"), 0, 0, address, bytes, sums]);
  return row;
}

function overlap(a: readonly Span[], b: readonly Span[]): boolean {
  return a.some((x) => b.some((y) => x.address < y.address + y.bytes && y.address < x.address + x.bytes));
}

/** Slots of the matrices of experts: those of the first, and the table of all. */
const expertSlots = (m: PlacedMatrix) => [...matrixSlots(m, 0), m.table];

/** The next multiple. */
export const roundUp = (count: number, multiple: number) => Math.ceil(count / multiple) * multiple;

/** Bytes of rows in int8 blocks: a byte a column, a float32 scale every 32, an int32 sum every 16. */
const blockBytes = (rows: number, columns: number) => roundUp(rows * columns * 1.375, 64);

/** Bytes of `tokens` rows in int8 blocks. */
export function quantizedBytes(tokens: number, columns: number): number {
  return blockBytes(roundUp(tokens, together(tokens)), columns);
}

/** What the working memory of a layer's experts depends on. */
export interface ExpertsSizes {
  readonly tokens: number;
  /** Experts of a token. */
  readonly k: number;
  readonly experts: number;
  /** Hidden values of an expert. */
  readonly width: number;
  /** Columns of the tokens that are copied together in int8 blocks; 0: none are. */
  readonly gathered: number;
  readonly hiddenIsInt8: boolean;
}

/** Bytes of the working memory that the experts of a layer need. */
export function expertsBytes(sizes: ExpertsSizes): number {
  return expertsMemory(0, sizes).end;
}

function expertsMemory(address: number, { tokens, k, experts, width, gathered, hiddenIsInt8 }: ExpertsSizes) {
  const pairs = tokens * k;
  // where rows lie together, every expert that has tokens begins a new group of them
  const rows =
    together(tokens) === 1 ? pairs : roundUp(pairs + (rowsTogether - 1) * Math.min(experts, pairs), rowsTogether);
  const first = address;
  const token = first + roundUp(4 * (experts + 1), 64);
  const weight = token + roundUp(4 * pairs, 64);
  const place = weight + roundUp(4 * pairs, 64);
  const active = place + roundUp(4 * experts, 64);
  const lists = { address, bytes: active + roundUp(4 * (experts + 1), 64) - address };
  const hidden = {
    address: address + lists.bytes,
    bytes: hiddenIsInt8 ? blockBytes(rows, width) : roundUp(4 * rows * width, 64),
  };
  const copy = {
    address: hidden.address + hidden.bytes,
    bytes: together(tokens) === 1 ? 0 : blockBytes(rows, gathered),
  };
  return {
    first,
    token,
    weight,
    place,
    active,
    lists,
    hidden: quantizedAt(hidden, rows, width),
    gathered: quantizedAt(copy, rows, gathered),
    end: copy.address + copy.bytes,
  };
}
