/**
 * The CPU device: float32 buffers, kernels in TypeScript. Ops where time goes have a kernel of their own; the others are
 * cheap and run their reference loops on float32 buffers. Sums are float64 and in one fixed order, whatever else is in the
 * step: the logits of a token do not depend on batch or chunking.
 */
import type { Graph, GraphNode } from "../../tensor/graph.ts";
import type { Elements } from "../../tensor/op.ts";
import type { CompileOptions, Device, Program } from "../device.ts";
import { InterpretedProgram, type Kernel, type Precision } from "../interpreter.ts";
import { compressEntriesKernel } from "./kernels/compress-entries.ts";
import { expertsKernel } from "./kernels/experts.ts";
import { indexerScoresKernel } from "./kernels/indexer-scores.ts";
import { groupedLinearKernel, linearKernel } from "./kernels/linear.ts";
import { sparseAttentionKernel } from "./kernels/sparse-attention.ts";
import { collapseStreamsKernel, expandStreamsKernel } from "./kernels/streams.ts";
import { topKKernel } from "./kernels/top-k.ts";

/** By the name of the op. */
export const cpuKernels: ReadonlyMap<string, Kernel> = new Map<string, Kernel>([
  ["collapseStreams", collapseStreamsKernel],
  ["compressEntries", compressEntriesKernel],
  ["expandStreams", expandStreamsKernel],
  ["experts", expertsKernel],
  ["groupedLinear", groupedLinearKernel],
  ["indexerScores", indexerScoresKernel],
  ["linear", linearKernel],
  ["sparseAttention", sparseAttentionKernel],
  ["topK", topKKernel],
]);

const float32: Precision = {
  bytes: 4,
  floats: (buffer, byteOffset, length) => new Float32Array(buffer, byteOffset, length),
  kernel: (node: GraphNode) => cpuKernels.get(node.op.name) ?? node.op.reference,
};

export class CpuDevice implements Device {
  readonly name = "cpu";
  readonly kernels = "TypeScript, float32";
  readonly #weights = new Map<string, Elements>();

  setWeight(name: string, data: Float32Array | Int32Array): void {
    this.#weights.set(name, data);
  }

  get weightBytes(): number {
    return [...this.#weights.values()].reduce((bytes, weight) => bytes + weight.byteLength, 0);
  }

  compile(graph: Graph, options: CompileOptions): Program {
    return new InterpretedProgram(graph, float32, this.#weights, options);
  }

  [Symbol.dispose](): void {
    this.#weights.clear();
  }
}
