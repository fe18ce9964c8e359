/**
 * What the kernels need beside the values of a graph, planned together with those: activations in int8 blocks, from the first product
 * that takes them to the last, and what the experts of a layer sort, copy together and keep between their two products.
 */
import type { Graph, GraphNode, Storage, Tensor } from "../../tensor/graph.ts";
import type { WorkingMemory } from "../../tensor/memory-plan.ts";
import type { ExpertsAttributes } from "../../tensor/ops/experts.ts";
import { countElements } from "../../tensor/shape.ts";
import { expertsBytes, quantizedBytes } from "./commands.ts";

export interface GraphFacts {
  /** The largest shape that a tensor may have. */
  shape(tensor: Tensor): readonly number[];
  /** Whether activations are quantised before they meet this weight. */
  takesInt8(weight: Tensor): boolean;
}

export class KernelMemory {
  readonly all: WorkingMemory[] = [];
  readonly #quantized = new Map<Storage, Map<number, WorkingMemory>>();
  readonly #experts = new Map<GraphNode, WorkingMemory>();
  readonly #facts: GraphFacts;

  constructor(graph: Graph, facts: GraphFacts) {
    this.#facts = facts;
    graph.nodes.forEach((node, index) => {
      const { inputs } = node;
      if (node.op.name === "linear" && facts.takesInt8(inputs[1]!)) this.#addQuantized(inputs[0]!, 1, index);
      // The groups of a token lie next to each other.
      if (node.op.name === "groupedLinear" && facts.takesInt8(inputs[1]!)) this.#addQuantized(inputs[0]!, 2, index);
      if (node.op.name === "experts") this.#addExperts(node, index);
    });
    for (const byColumns of this.#quantized.values()) this.all.push(...byColumns.values());
    this.all.push(...this.#experts.values());
  }

  /** Of a tensor as rows of so many columns. */
  quantized({ storage }: Tensor, columns: number): WorkingMemory {
    return this.#quantized.get(storage)!.get(columns)!;
  }

  experts(node: GraphNode): WorkingMemory {
    return this.#experts.get(node)!;
  }

  /** A row is the last `axes` axes of the tensor. */
  #addQuantized(x: Tensor, axes: number, lastNode: number): void {
    const shape = this.#facts.shape(x);
    const columns = countElements(shape.slice(-axes));
    const byColumns = this.#quantized.get(x.storage) ?? new Map<number, WorkingMemory>();
    const firstNode = byColumns.get(columns)?.firstNode ?? lastNode;
    const elements = quantizedBytes(countElements(shape) / columns, columns) / 4;
    byColumns.set(columns, { firstNode, lastNode, elements });
    this.#quantized.set(x.storage, byColumns);
  }

  #addExperts(node: GraphNode, index: number): void {
    const [x, chosen, , gate, up, down] = node.inputs as [Tensor, Tensor, Tensor, Tensor, Tensor, Tensor];
    const { shape, takesInt8 } = this.#facts;
    const [tokens, k] = shape(chosen) as [number, number];
    const [experts, width, columns] = shape(gate) as [number, number, number];
    const isInt8 = takesInt8(gate) && takesInt8(up);
    const hiddenIsInt8 = takesInt8(down) && !(node.attributes as ExpertsAttributes).roundsHidden;
    const bytes = expertsBytes({ tokens, k, experts, width, gathered: isInt8 ? columns : 0, hiddenIsInt8 });
    this.#experts.set(node, { firstNode: index, lastNode: index, elements: bytes / 4 });
    if (isInt8) this.#addQuantized(x, 1, index);
  }
}
