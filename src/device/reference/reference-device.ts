/**
 * The oracle: every op by its plain float64 loops. Slow, and the same on every machine; what other devices compute is
 * compared with it.
 */
import type { Graph, GraphNode } from "../../tensor/graph.ts";
import type { Elements } from "../../tensor/op.ts";
import type { CompileOptions, Device, Program } from "../device.ts";
import { InterpretedProgram, type Precision } from "../interpreter.ts";

const float64: Precision = {
  bytes: 8,
  floats: (buffer, byteOffset, length) => new Float64Array(buffer, byteOffset, length),
  kernel: (node: GraphNode) => node.op.reference,
};

export class ReferenceDevice implements Device {
  readonly name = "reference";
  readonly kernels = "TypeScript, float64, one plain loop an op";
  readonly #weights = new Map<string, Elements>();

  setWeight(name: string, data: Float32Array | Int32Array): void {
    this.#weights.set(name, data instanceof Int32Array ? data : Float64Array.from(data));
  }

  get weightBytes(): number {
    return [...this.#weights.values()].reduce((bytes, weight) => bytes + weight.byteLength, 0);
  }

  compile(graph: Graph, options: CompileOptions): Program {
    return new InterpretedProgram(graph, float64, this.#weights, options);
  }

  [Symbol.dispose](): void {
    this.#weights.clear();
  }
}
