/**
 * Where every intermediate value of a graph lies in one arena. Values whose lifetimes do not overlap share memory; an op
 * that works element by element may write over its dying input. Offsets are in elements and hold for all steps whose
 * sizes are within the limits.
 */
import type { Graph, Storage, Tensor } from "./graph.ts";
import { countElements, resolveShape, type Sizes } from "./shape.ts";

export interface MemoryPlan {
  /** Elements of the arena. */
  readonly arenaElements: number;
  readonly offsets: ReadonlyMap<Storage | WorkingMemory, number>;
}

/** What a device needs beside the values of the graph, from one of its nodes to another. */
export interface WorkingMemory {
  readonly firstNode: number;
  readonly lastNode: number;
  readonly elements: number;
}

interface Block {
  readonly offset: number;
  readonly elements: number;
}

/** `kept` values live to the end of the step, so that they can be read afterwards. */
export function planMemory(
  graph: Graph,
  limits: Sizes,
  kept: readonly Tensor[],
  working: readonly WorkingMemory[] = [],
): MemoryPlan {
  const lastUse = lastUses(graph, kept);
  for (const memory of working) lastUse.set(memory, memory.lastNode);
  const begins = Map.groupBy(working, ({ firstNode }) => firstNode);
  const offsets = new Map<Storage | WorkingMemory, number>();
  const live = new Map<Storage | WorkingMemory, Block>();
  let arenaElements = 0;
  const place = (value: Storage | WorkingMemory, block: Block) => {
    live.set(value, block);
    offsets.set(value, block.offset);
    arenaElements = Math.max(arenaElements, block.offset + block.elements);
  };
  const inGap = (elements: number) => ({ offset: firstGap([...live.values()], elements), elements });

  graph.nodes.forEach((node, step) => {
    for (const memory of begins.get(step) ?? []) place(memory, inGap(inLines(memory.elements)));
    const dying = new Set(node.inputs.map((input) => input.storage).filter((storage) => lastUse.get(storage) === step));
    node.outputs.forEach((output, index) => {
      if (output.storage.kind !== "intermediate") return;
      const elements = sizeOf(output.storage, limits);
      const over = index === 0 && node.op.mayOverwrite ? live.get(node.inputs[0]!.storage) : undefined;
      const reuse = over !== undefined && over.elements === elements && dying.has(node.inputs[0]!.storage);
      if (reuse) live.delete(node.inputs[0]!.storage);
      place(output.storage, reuse ? over : inGap(elements));
    });
    for (const value of live.keys()) if ((lastUse.get(value) ?? step) <= step) live.delete(value);
  });
  return { arenaElements, offsets };
}

/** The index of the last node that reads (or makes) each storage; a kept one is never freed. */
function lastUses(graph: Graph, kept: readonly Tensor[]): Map<Storage | WorkingMemory, number> {
  const last = new Map<Storage | WorkingMemory, number>();
  graph.nodes.forEach((node, step) => {
    for (const tensor of [...node.inputs, ...node.outputs]) last.set(tensor.storage, step);
  });
  for (const tensor of kept) last.set(tensor.storage, Number.POSITIVE_INFINITY);
  return last;
}

function sizeOf(storage: Extract<Storage, { kind: "intermediate" }>, limits: Sizes): number {
  return inLines(countElements(resolveShape(storage.type.shape, limits)));
}

/** Blocks begin at multiples of 16 elements: 64 bytes in float32, a cache line. */
function inLines(elements: number): number {
  return Math.ceil(elements / 16) * 16;
}

/** The lowest offset where `elements` fit between the live blocks. */
function firstGap(blocks: Block[], elements: number): number {
  blocks.sort((a, b) => a.offset - b.offset);
  let offset = 0;
  for (const block of blocks) {
    if (block.elements > 0 && block.offset < offset + elements)
      offset = Math.max(offset, block.offset + block.elements);
    else if (block.elements > 0) break;
  }
  return offset;
}
