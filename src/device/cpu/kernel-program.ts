/**
 * A graph compiled for the kernels: one arena for intermediate values and working memory, buffers for inputs and caches, and the commands of a step.
 * Commands hold addresses and sizes; they are written anew when a step has sizes that no earlier one had, and decoding comes back
 * to the same few sizes again and again.
 */
import { DeviceError } from "../../errors.ts";
import type { CacheTensor, Graph, Storage, Tensor } from "../../tensor/graph.ts";
import { type MemoryPlan, planMemory, type WorkingMemory } from "../../tensor/memory-plan.ts";
import { layoutName } from "../../tensor/paging.ts";
import { countElements, resolveShape, type Sizes } from "../../tensor/shape.ts";
import { type CompileOptions, type Program, requireWholeRows, type StepOutcome, type StepValues } from "../device.ts";
import { CommandWriter, commandBytes } from "./commands.ts";
import type { KernelDevice, PlacedWeight } from "./kernel-device.ts";
import { float32View, int32View, type KernelHost, type Region } from "./kernel-host.ts";
import { hasBlocks } from "./matrix-formats.ts";
import type { PlacedMatrix, Placement, Span } from "./op-slots.ts";
import { scratchBytes } from "./scratch.ts";
import { KernelMemory } from "./working-memory.ts";

/** Programs of different sizes that are kept. */
const mostCommandLists = 24;

interface CommandList {
  readonly region: Region;
  readonly count: number;
  /** Inputs of floats, and the first command that may read each: in the order of the commands. */
  readonly firstReads: readonly { readonly name: string; readonly command: number }[];
}

export class KernelProgram implements Program {
  readonly graph: Graph;
  readonly #device: KernelDevice;
  readonly #host: KernelHost;
  readonly #weight: (name: string) => PlacedWeight;
  readonly #kept = new Map<string, Tensor>();
  readonly #caches = new Map<string, Region>();
  readonly #inputs = new Map<string, Region>();
  readonly #constants = new Map<readonly number[], Region>();
  readonly #onPause: (() => void) | undefined;
  #limits: Sizes;
  #plan!: MemoryPlan;
  #arena!: Region;
  #memory!: KernelMemory;
  #scratch!: Region;
  #scratchBytes!: number;
  /** By the sizes of the step; the one used last stands last. */
  #lists = new Map<string, CommandList>();
  #sizes: Sizes | undefined;

  constructor(graph: Graph, device: KernelDevice, weight: (name: string) => PlacedWeight, options: CompileOptions) {
    this.graph = graph;
    this.#device = device;
    this.#host = device.host;
    this.#weight = weight;
    for (const [name, tensor] of graph.outputs) this.#kept.set(name, tensor);
    for (const name of options.keep ?? []) this.#kept.set(name, found(graph.labels.get(name), "label", name));
    for (const name of graph.weights.keys()) weight(name);
    for (const cache of graph.caches.values()) this.#caches.set(cache.storage.name, this.#host.allocate(0));
    this.#onPause = options.onPause;
    this.#limits = options.limits;
    this.#makeRoom();
  }

  reserve(limits: Sizes): void {
    this.#device.requireOpen();
    this.#forgetLists();
    this.#arena.free();
    this.#scratch.free();
    this.#sizes = undefined;
    this.#limits = limits;
    this.#makeRoom();
  }

  async run(step: StepValues, signal?: AbortSignal): Promise<StepOutcome> {
    this.#device.requireOpen();
    for (const [name, limit] of Object.entries(this.#limits)) {
      if (step.sizes[name]! <= limit) continue;
      throw new DeviceError(`The step has ${step.sizes[name]} ${name}, the program has room for ${limit}`);
    }
    this.#takeInputs(step);
    this.#sizes = undefined;
    const list = this.#commands(step.sizes);
    let done = 0;
    for (const { name, command } of list.firstReads) {
      const late = step.late?.[name];
      if (late === undefined) continue;
      if ((await this.#runCommands(list, done, command, step, signal)) === "stopped") return "stopped";
      done = command;
      this.#takeInput(name, await late, step.sizes);
    }
    const outcome = await this.#runCommands(list, done, list.count, step, signal);
    if (outcome === "done") this.#sizes = step.sizes;
    return outcome;
  }

  async #runCommands(
    { region }: CommandList,
    begin: number,
    end: number,
    { sizes }: StepValues,
    signal: AbortSignal | undefined,
  ): Promise<StepOutcome> {
    const scratch = { scratch: this.#scratch.address, scratchBytes: this.#scratchBytes };
    const tokens = sizes.tokens ?? Number.POSITIVE_INFINITY; // images have patches instead, and many of them
    const count = this.#onPause === undefined ? end - begin : 1;
    for (let first = begin; first < end; first += count) {
      const commands = region.address + first * commandBytes;
      const work = { commands, count, ...scratch, tokens };
      if ((await this.#host.run(work, signal)) === "stopped") return "stopped";
      this.#onPause?.();
    }
    return "done";
  }

  read(name: string): Float32Array | Int32Array {
    this.#device.requireOpen();
    const tensor = found(this.#kept.get(name), "output", name);
    if (this.#sizes === undefined) throw new DeviceError(`"${name}" is read, but no step has ended whole`);
    const { storage } = tensor;
    const length = countElements(resolveShape(tensor.shape, this.#sizes));
    const [region, offset] =
      storage.kind === "input" ? [this.#inputs.get(storage.name)!, 0] : [this.#arena, this.#plan.offsets.get(storage)!];
    return (tensor.dtype === "i32" ? int32View : float32View)(region, offset, length).slice();
  }

  resizeCaches(layout: string, rows: number): void {
    this.#device.requireOpen();
    for (const { storage } of this.#cachesOf(layout)) {
      const old = this.#caches.get(storage.name)!;
      const grown = this.#host.allocate(4 * rows * storage.width);
      const kept = Math.min(old.bytes, grown.bytes) / 4;
      float32View(grown, 0, kept).set(float32View(old, 0, kept));
      old.free();
      this.#caches.set(storage.name, grown);
    }
    this.#forgetLists();
  }

  copyCacheRows(layout: string, from: number, to: number, count: number): void {
    this.#device.requireOpen();
    for (const { storage } of this.#cachesOf(layout)) {
      const { name, width } = storage;
      const region = this.#caches.get(name)!;
      float32View(region, 0, region.bytes / 4).copyWithin(to * width, from * width, (from + count) * width);
    }
  }

  async readCache(name: string, firstRow: number, rows: number): Promise<Float32Array> {
    this.#device.requireOpen();
    const { width } = found(this.graph.caches.get(name), "cache", name).storage;
    return float32View(this.#caches.get(name)!, firstRow * width, rows * width).slice();
  }

  writeCache(name: string, firstRow: number, data: Float32Array | Float64Array): void {
    this.#device.requireOpen();
    const { width } = found(this.graph.caches.get(name), "cache", name).storage;
    const region = this.#caches.get(name)!;
    requireWholeRows(name, { firstRow, width, values: data.length, room: region.bytes / 4 });
    float32View(region, firstRow * width, data.length).set(data);
  }

  get memoryBytes(): number {
    const regions = [...this.#caches.values(), this.#arena, this.#scratch];
    return regions.reduce((bytes, region) => bytes + region.bytes, 0);
  }

  [Symbol.dispose](): void {
    this.#forgetLists();
    const work = [this.#arena, this.#scratch];
    for (const region of [...this.#caches.values(), ...this.#inputs.values(), ...this.#constants.values(), ...work])
      region.free();
    this.#caches.clear();
  }

  #cachesOf(layout: string): CacheTensor[] {
    return [...this.graph.caches.values()].filter((cache) => layoutName(cache.storage.layout) === layout);
  }

  /** Makes room for steps within the limits: the arena, and the scratch of every worker. */
  #makeRoom(): void {
    const { graph } = this;
    const shape = (tensor: Tensor) => resolveShape(tensor.shape, { rows: 0, ...this.#limits });
    this.#memory = new KernelMemory(graph, { shape, takesInt8: (weight) => this.#takesInt8(weight) });
    this.#plan = planMemory(graph, this.#limits, [...this.#kept.values()], this.#memory.all);
    this.#arena = this.#host.allocate(4 * this.#plan.arenaElements);
    // What drafts has rows of its own; several sequences may draft more tokens than a step of the model holds.
    const { tokens = 1, pairs = 0, drafts = 0 } = this.#limits;
    this.#scratchBytes = scratchBytes(graph, shape, Math.max(tokens, pairs, drafts));
    this.#scratch = this.#host.allocate(this.#scratchBytes * this.#host.workers);
  }

  #takesInt8({ storage }: Tensor): boolean {
    if (this.#device.activations !== "int8" || storage.kind !== "weight") return false;
    const weight = this.#weight(storage.name);
    return weight.kind === "matrix" && hasBlocks(weight.matrix.format);
  }

  /** Copies the inputs to where the commands expect them, and makes room for those that come late. */
  #takeInputs({ sizes, inputs, late }: StepValues): void {
    for (const [name, tensor] of this.graph.inputs) {
      this.#makeRoomForInput(name, countElements(resolveShape(tensor.shape, sizes)));
      if (late?.[name] === undefined) this.#takeInput(name, found(inputs[name], "input", name), sizes);
    }
  }

  #takeInput(name: string, values: Int32Array | Float32Array, sizes: Sizes): void {
    const tensor = this.graph.inputs.get(name)!;
    const elements = countElements(resolveShape(tensor.shape, sizes));
    if (values.length !== elements) {
      throw new DeviceError(`The input "${name}" has ${values.length} elements, the step needs ${elements}`);
    }
    (tensor.dtype === "i32" ? int32View : float32View)(this.#inputs.get(name)!, 0, elements).set(values);
  }

  /** A buffer that must grow moves, and the commands with it. */
  #makeRoomForInput(name: string, elements: number): void {
    const region = this.#inputs.get(name);
    if (region !== undefined && region.bytes >= 4 * elements) return;
    region?.free();
    this.#inputs.set(name, this.#host.allocate(Math.max(256, 8 * elements)));
    this.#forgetLists();
  }

  #commands(sizes: Sizes): CommandList {
    const key = Object.values(sizes).join(",");
    const known = this.#lists.get(key);
    this.#lists.delete(key);
    const list = known ?? this.#write(sizes);
    this.#lists.set(key, list);
    if (this.#lists.size > mostCommandLists) {
      const [oldest, { region }] = this.#lists.entries().next().value!;
      region.free();
      this.#lists.delete(oldest);
    }
    return list;
  }

  #write(sizes: Sizes): CommandList {
    const writer = new CommandWriter(this.#placement(sizes));
    const firstReads: { name: string; command: number }[] = [];
    const isFirst = (name: string) => firstReads.every((read) => read.name !== name);
    for (const node of this.graph.nodes) {
      for (const { storage, dtype } of node.inputs)
        if (storage.kind === "input" && dtype === "f32" && isFirst(storage.name))
          firstReads.push({ name: storage.name, command: writer.count });
      writer.node(node);
    }
    const commands = writer.finish();
    const region = this.#host.allocate(commands.byteLength);
    new Float64Array(region.view.buffer, region.view.byteOffset, commands.length).set(commands);
    return { region, count: writer.count, firstReads };
  }

  #placement(sizes: Sizes): Placement {
    const shape = (tensor: Tensor): readonly number[] => {
      const { storage } = tensor;
      if (storage.kind !== "cache") return resolveShape(tensor.shape, sizes);
      return [this.#caches.get(storage.name)!.bytes / 4 / storage.width, storage.width];
    };
    return {
      workers: this.#host.workers,
      int8: this.#device.activations === "int8",
      shape,
      span: (tensor) => this.#span(tensor, 4 * countElements(shape(tensor))),
      matrix: (tensor) => this.#matrix(tensor),
      isStored: ({ storage }) => storage.kind === "weight" && this.#weight(storage.name).kind === "matrix",
      constants: (values) => this.#constantsOf(values),
      quantized: (tensor, columns) => this.#placed(this.#memory.quantized(tensor, columns)),
      experts: (node) => this.#placed(this.#memory.experts(node)),
    };
  }

  #span({ storage }: Tensor, bytes: number): Span {
    switch (storage.kind) {
      case "input":
        return { address: this.#inputs.get(storage.name)!.address, bytes };
      case "cache":
        return { address: this.#caches.get(storage.name)!.address, bytes };
      case "weight": {
        const weight = this.#weight(storage.name);
        // Kernels of matrices are given the matrix; others never see a stored weight.
        return weight.kind === "numbers" ? weight.span : { address: weight.matrix.parts[0]!.data, bytes: 0 };
      }
      case "intermediate":
        return { ...this.#placed(storage), bytes };
      default:
        return storage satisfies never;
    }
  }

  #placed(value: Storage | WorkingMemory): { address: number } {
    return { address: this.#arena.address + 4 * this.#plan.offsets.get(value)! };
  }

  #matrix(tensor: Tensor): PlacedMatrix {
    const { storage } = tensor;
    if (storage.kind !== "weight") throw new DeviceError("A matrix that is no weight cannot be multiplied here");
    const weight = this.#weight(storage.name);
    if (weight.kind === "matrix") return weight.matrix;
    const shape = tensor.shape as readonly number[]; // weights have no named sizes
    const [rows, columns] = shape.slice(-2) as [number, number];
    const experts = shape.length === 3 ? shape[0]! : 1;
    const parts = Array.from({ length: experts }, (_, e) => ({
      data: weight.span.address + 4 * e * rows * columns,
      scales: 0,
    }));
    const table = this.#constantsOf(this.#tableOf(storage.name, parts));
    const apart = { scaleRowElements: 0, scaleIsFloat: false, blockRows: 1, blockColumns: 1 };
    return { format: "F32", rows, columns, rowBytes: 4 * columns, parts, table, ...apart };
  }

  readonly #tables = new Map<string, readonly number[]>();

  #tableOf(name: string, parts: readonly { data: number; scales: number }[]): readonly number[] {
    const known = this.#tables.get(name) ?? parts.flatMap(({ data, scales }) => [data, scales]);
    this.#tables.set(name, known);
    return known;
  }

  /** Numbers in memory as float64; the same array is stored once. */
  #constantsOf(values: readonly number[]): number {
    let region = this.#constants.get(values);
    if (region === undefined) {
      region = this.#host.allocate(8 * values.length);
      new Float64Array(region.view.buffer, region.view.byteOffset, values.length).set(values);
      this.#constants.set(values, region);
    }
    return region.address;
  }

  #forgetLists(): void {
    for (const { region } of this.#lists.values()) region.free();
    this.#lists.clear();
  }
}

function found<T>(value: T | undefined, what: string, name: string): T {
  if (value === undefined) throw new DeviceError(`The program needs the ${what} "${name}", which is not there`);
  return value;
}
