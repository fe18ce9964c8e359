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
  readonly offsets: ReadonlyMap<Storage, number>;
}

interface Block {
  readonly offset: number;
  readonly elements: number;
}

/** `kept` values live to the end of the step, so that they can be read afterwards. */
export function planMemory(graph: Graph, limits: Sizes, kept: readonly Tensor[]): MemoryPlan {
  const lastUse = lastUses(graph, kept);
  const offsets = new Map<Storage, number>();
  const live = new Map<Storage, Block>();
  let arenaElements = 0;

  graph.nodes.forEach((node, step) => {
    const dying = new Set(node.inputs.map((input) => input.storage).filter((storage) => lastUse.get(storage) === step));
    node.outputs.forEach((output, index) => {
      if (output.storage.kind !== "intermediate") return;
      const elements = sizeOf(output.storage, limits);
      const over = index === 0 && node.op.mayOverwrite ? live.get(node.inputs[0]!.storage) : undefined;
      const reuse = over !== undefined && over.elements === elements && dying.has(node.inputs[0]!.storage);
      const block = reuse ? over : { offset: firstGap([...live.values()], elements), elements };
      if (reuse) live.delete(node.inputs[0]!.storage);
      live.set(output.storage, block);
      offsets.set(output.storage, block.offset);
      arenaElements = Math.max(arenaElements, block.offset + elements);
    });
    for (const storage of live.keys()) if ((lastUse.get(storage) ?? step) <= step) live.delete(storage);
  });
  return { arenaElements, offsets };
}

/** The index of the last node that reads (or makes) each storage; a kept one is never freed. */
function lastUses(graph: Graph, kept: readonly Tensor[]): Map<Storage, number> {
  const last = new Map<Storage, number>();
  graph.nodes.forEach((node, step) => {
    for (const tensor of [...node.inputs, ...node.outputs]) last.set(tensor.storage, step);
  });
  for (const tensor of kept) last.set(tensor.storage, Number.POSITIVE_INFINITY);
  return last;
}

function sizeOf(storage: Extract<Storage, { kind: "intermediate" }>, limits: Sizes): number {
  // Blocks begin at multiples of 16 elements: 64 bytes in float32, a cache line.
  return Math.ceil(countElements(resolveShape(storage.type.shape, limits)) / 16) * 16;
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
