/**
 * The CPU device: float32 buffers, kernels in TypeScript. Ops where time goes have a kernel of their own; the others are
 * cheap and run their reference loops on float32 buffers. Sums are float64 and in one fixed order, whatever else is in the
 * step: the logits of a token do not depend on batch or chunking.
 */
import { InterpretedDevice, type Kernel, type Precision } from "../interpreter.ts";
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
  weight: (data) => data,
  kernel: (node) => cpuKernels.get(node.op.name) ?? node.op.reference,
};

export class CpuDevice extends InterpretedDevice {
  constructor() {
    super("cpu", "TypeScript, float32", float32);
  }
}
