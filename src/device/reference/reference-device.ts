/**
 * The oracle: every op by its plain float64 loops, in the order of the graph, on views of one arena. Slow, and the same on every
 * machine; what other devices compute is compared with it.
 */
import { DeviceError } from "../../errors.ts";
import type { CacheTensor, Graph, GraphNode, Tensor } from "../../tensor/graph.ts";
import { type MemoryPlan, planMemory } from "../../tensor/memory-plan.ts";
import type { Elements } from "../../tensor/op.ts";
import { layoutName } from "../../tensor/paging.ts";
import { countElements, resolveShape, type Sizes } from "../../tensor/shape.ts";
import {
  type CompileOptions,
  type Device,
  deviceDisposed,
  type Program,
  requireWholeRows,
  type StepOutcome,
  type StepValues,
  withLateInputs,
} from "../device.ts";
import { yieldToEventLoop } from "../event-loop.ts";

export class ReferenceDevice implements Device {
  readonly name = "reference";
  readonly kernels = "TypeScript, float64, one plain loop an op";
  readonly threads = 1;
  readonly #weights = new Map<string, Elements>();
  #isDisposed = false;

  setWeight(name: string, data: Float32Array | Int32Array): void {
    this.#weights.set(name, data instanceof Int32Array ? data : Float64Array.from(data));
  }

  bytesOfWeight(name: string): number {
    return found(this.#weights.get(name), "weight", name).byteLength;
  }

  get weightBytes(): number {
    return [...this.#weights.values()].reduce((bytes, weight) => bytes + weight.byteLength, 0);
  }

  compile(graph: Graph, options: CompileOptions): Program {
    return new ReferenceProgram(graph, this, this.#weights, options);
  }

  /** Throws a DeviceError (code "disposed") when the device was disposed of. */
  requireOpen(): void {
    if (this.#isDisposed) throw deviceDisposed();
  }

  [Symbol.dispose](): void {
    this.#isDisposed = true;
    this.#weights.clear();
  }
}

const bytesOfFloat = Float64Array.BYTES_PER_ELEMENT;

/** What the caller's event loop waits at most, beside one op: all of it is computed on the caller's thread. */
const mostMs = 8;

class ReferenceProgram implements Program {
  readonly graph: Graph;
  readonly #device: ReferenceDevice;
  readonly #weights: ReadonlyMap<string, Elements>;
  readonly #kept = new Map<string, Tensor>();
  readonly #caches = new Map<string, Float64Array>();
  #plan: MemoryPlan;
  #arena: ArrayBuffer;
  #limits: Sizes;
  /** The calls of the last step, valid as long as sizes, arena and caches stay: decoding repeats the same sizes. */
  #calls: { readonly key: string; readonly calls: readonly (() => void)[] } | undefined;
  #step: StepValues | undefined;
  /** Inputs are copied here, so that cached calls see the numbers of the new step. */
  readonly #inputs = new Map<string, Elements>();

  constructor(graph: Graph, device: ReferenceDevice, weights: ReadonlyMap<string, Elements>, options: CompileOptions) {
    this.graph = graph;
    this.#device = device;
    this.#weights = weights;
    for (const [name, tensor] of graph.outputs) this.#kept.set(name, tensor);
    for (const name of options.keep ?? []) this.#kept.set(name, found(graph.labels.get(name), "label", name));
    for (const name of graph.weights.keys()) found(weights.get(name), "weight", name);
    for (const cache of graph.caches.values()) this.#caches.set(cache.storage.name, new Float64Array(0));
    this.#limits = options.limits;
    this.#plan = planMemory(graph, this.#limits, [...this.#kept.values()]);
    this.#arena = new ArrayBuffer(this.#plan.arenaElements * bytesOfFloat);
  }

  reserve(limits: Sizes): void {
    this.#limits = limits;
    this.#plan = planMemory(this.graph, limits, [...this.#kept.values()]);
    this.#arena = new ArrayBuffer(this.#plan.arenaElements * bytesOfFloat);
    this.#calls = undefined;
    this.#step = undefined;
  }

  async run(values: StepValues, signal?: AbortSignal): Promise<StepOutcome> {
    this.#device.requireOpen();
    const step = await withLateInputs(values);
    this.#device.requireOpen();
    this.#checkSizes(step.sizes);
    const key = Object.values(step.sizes).join(",");
    const fresh = this.#calls?.key !== key;
    this.#takeInputs(step, fresh);
    this.#step = undefined;
    if (fresh) this.#calls = { key, calls: this.graph.nodes.map((node) => this.#bind(node, step.sizes)) };
    let since = performance.now();
    for (const call of this.#calls!.calls) {
      if (performance.now() - since > mostMs) {
        await yieldToEventLoop();
        since = performance.now();
      }
      if (signal?.aborted) return "stopped";
      call();
    }
    this.#step = step;
    return "done";
  }

  read(name: string): Elements {
    const tensor = found(this.#kept.get(name), "output", name);
    if (this.#step === undefined) throw new DeviceError(`"${name}" is read, but no step has ended whole`);
    return this.#view(tensor, resolveShape(tensor.shape, this.#step.sizes)).slice();
  }

  resizeCaches(layout: string, rows: number): void {
    for (const cache of this.#cachesOf(layout)) {
      const old = this.#caches.get(cache.storage.name)!;
      const grown = new Float64Array(rows * cache.storage.width);
      grown.set(old.subarray(0, Math.min(old.length, grown.length)));
      this.#caches.set(cache.storage.name, grown);
    }
    this.#calls = undefined;
  }

  copyCacheRows(layout: string, from: number, to: number, count: number): void {
    for (const cache of this.#cachesOf(layout)) {
      const { name, width } = cache.storage;
      this.#caches.get(name)!.copyWithin(to * width, from * width, (from + count) * width);
    }
  }

  async readCache(name: string, firstRow: number, rows: number): Promise<Float64Array> {
    const { width } = found(this.graph.caches.get(name), "cache", name).storage;
    return this.#caches.get(name)!.slice(firstRow * width, (firstRow + rows) * width);
  }

  writeCache(name: string, firstRow: number, data: Float32Array | Float64Array): void {
    const { width } = found(this.graph.caches.get(name), "cache", name).storage;
    const values = this.#caches.get(name)!;
    requireWholeRows(name, { firstRow, width, values: data.length, room: values.length });
    values.set(data, firstRow * width);
  }

  get memoryBytes(): number {
    return [...this.#caches.values()].reduce((bytes, cache) => bytes + cache.byteLength, this.#arena.byteLength);
  }

  #cachesOf(layout: string): CacheTensor[] {
    return [...this.graph.caches.values()].filter((cache) => layoutName(cache.storage.layout) === layout);
  }

  #checkSizes(sizes: Sizes): void {
    for (const [name, limit] of Object.entries(this.#limits)) {
      if (!(sizes[name]! <= limit)) {
        throw new DeviceError(`The step has ${sizes[name]} ${name}, the program has room for ${limit}`);
      }
    }
  }

  /** Copies the inputs into buffers that the bound calls hold; new buffers when the sizes changed. */
  #takeInputs(step: StepValues, fresh: boolean): void {
    for (const [name, tensor] of this.graph.inputs) {
      const values = found(step.inputs[name], "input", name);
      const elements = countElements(resolveShape(tensor.shape, step.sizes));
      if (values.length !== elements) {
        throw new DeviceError(`The input "${name}" has ${values.length} elements, the step needs ${elements}`);
      }
      if (fresh) {
        this.#inputs.set(name, tensor.dtype === "i32" ? new Int32Array(elements) : new Float64Array(elements));
      }
      this.#inputs.get(name)!.set(values);
    }
  }

  #bind(node: GraphNode, sizes: Sizes): () => void {
    const inputShapes = node.inputs.map((tensor) => this.#shapeOf(tensor, sizes));
    const outputShapes = node.outputs.map((tensor) => this.#shapeOf(tensor, sizes));
    const call = {
      inputs: node.inputs.map((tensor, i) => this.#view(tensor, inputShapes[i]!)),
      outputs: node.outputs.map((tensor, i) => this.#view(tensor, outputShapes[i]!)),
      inputShapes,
      outputShapes,
      attributes: node.attributes as never, // the graph keeps an op and its own attributes together
    };
    return () => node.op.reference(call);
  }

  #shapeOf(tensor: Tensor, sizes: Sizes): number[] {
    const { storage } = tensor;
    if (storage.kind !== "cache") return resolveShape(tensor.shape, sizes);
    return [this.#caches.get(storage.name)!.length / storage.width, storage.width];
  }

  #view(tensor: Tensor, shape: readonly number[]): Elements {
    const { storage } = tensor;
    switch (storage.kind) {
      case "input":
        return this.#inputs.get(storage.name)!;
      case "weight":
        return this.#weights.get(storage.name)!;
      case "cache":
        return this.#caches.get(storage.name)!;
      case "intermediate": {
        const byteOffset = this.#plan.offsets.get(storage)! * bytesOfFloat;
        const length = countElements(shape);
        const Values = storage.type.dtype === "i32" ? Int32Array : Float64Array;
        return new Values(this.#arena, byteOffset, length);
      }
      default:
        return storage satisfies never;
    }
  }
}

function found<T>(value: T | undefined, what: string, name: string): T {
  if (value === undefined) throw new DeviceError(`The program needs the ${what} "${name}", which is not there`);
  return value;
}
