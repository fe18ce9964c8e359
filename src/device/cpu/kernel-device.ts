/**
 * The device whose kernels are C, native or in WebAssembly: float32 activations, weights in the formats of their files, a whole
 * step as one list of commands that workers run without JavaScript. The logits of a token do not depend on what else is in the
 * step, on the number of workers or on how the input was cut.
 */
import { DeviceError } from "../../errors.ts";
import type { Graph } from "../../tensor/graph.ts";
import { type CompileOptions, type Device, deviceDisposed, type Program, type StoredMatrix } from "../device.ts";
import { readMemoryCommand } from "./commands.ts";
import { float32View, int32View, type KernelHost, type Region } from "./kernel-host.ts";
import { KernelProgram } from "./kernel-program.ts";
import { bytesOfRow, isMatrixFormat } from "./matrix-formats.ts";
import type { PlacedMatrix, Span } from "./op-slots.ts";

/**
 * How activations meet weights in block formats: quantised to int8 blocks of 32 (fast), or in float32 (exact: as if the weights
 * were dequantised first). Weights in F32, F16, BF16 and FP8 always meet float32.
 */
export type Activations = "int8" | "float32";

/** A weight in memory: numbers of 4 bytes, or a matrix in a stored format. */
export type PlacedWeight =
  | { readonly kind: "numbers"; readonly span: Span }
  | { readonly kind: "matrix"; readonly matrix: PlacedMatrix };

export class KernelDevice implements Device {
  readonly host: KernelHost;
  readonly activations: Activations;
  readonly #weights = new Map<string, PlacedWeight>();
  readonly #regions: Region[] = [];
  readonly #programs: KernelProgram[] = [];
  #matrixBytes = 0;
  #isDisposed = false;

  constructor(host: KernelHost, activations: Activations = "int8") {
    this.host = host;
    this.activations = activations;
  }

  get name(): string {
    return this.host.name;
  }

  get kernels(): string {
    return `C, ${this.host.instructions}, ${this.activations} activations`;
  }

  get threads(): number {
    return this.host.workers;
  }

  setWeight(name: string, data: Float32Array | Int32Array): void {
    const region = this.#allocate(data.byteLength);
    if (data instanceof Int32Array) int32View(region, 0, data.length).set(data);
    else float32View(region, 0, data.length).set(data);
    this.#weights.set(name, { kind: "numbers", span: region });
  }

  async setMatrix(name: string, stored: StoredMatrix): Promise<boolean> {
    const { format, rows, columns, experts } = stored;
    if (!isMatrixFormat(format)) return false;
    const rowBytes = bytesOfRow(format, columns);
    const each = rowBytes * rows;
    const parts: { data: number; scales: number }[] = [];
    for (const { data, scales } of stored.parts) {
      const address = await this.host.place(data);
      const scaleAddress = scales === undefined ? 0 : await this.host.place(scales);
      if (stored.parts.length === 1) {
        for (let e = 0; e < experts; e++) parts.push({ data: address + e * each, scales: scaleAddress });
      } else {
        parts.push({ data: address, scales: scaleAddress });
      }
      this.#matrixBytes += data.length + (scales?.length ?? 0);
    }
    const table = this.#allocate(16 * experts);
    new Float64Array(table.view.buffer, table.view.byteOffset, 2 * experts).set(
      parts.flatMap(({ data, scales }) => [data, scales]),
    );
    const { scaleIsFloat, blockRows, blockColumns } = stored;
    const scaleRowElements = Math.ceil(columns / blockColumns);
    const shape = { format, rows, columns, rowBytes, scaleRowElements, scaleIsFloat, blockRows, blockColumns };
    this.#weights.set(name, { kind: "matrix", matrix: { ...shape, parts, table: table.address } });
    return true;
  }

  bytesOfWeight(name: string): number {
    const weight = this.#weight(name);
    if (weight.kind === "numbers") return weight.span.bytes;
    const { rowBytes, rows, parts, scaleRowElements, blockRows, scaleIsFloat } = weight.matrix;
    const scales = parts[0]!.scales === 0 ? 0 : Math.ceil(rows / blockRows) * scaleRowElements * (scaleIsFloat ? 4 : 1);
    return parts.length * (rowBytes * rows + scales);
  }

  /**
   * Bytes a second that these workers read from memory: the median of passes over more of it than the caches hold. The best one
   * would be of a better moment of a shared machine than the steps that it is compared with.
   */
  async readCeiling(): Promise<number> {
    const bytes = 512 << 20;
    const data = this.host.allocate(bytes);
    const sums = this.host.allocate(64 * this.host.workers);
    const command = readMemoryCommand(data.address, bytes, sums.address);
    const region = this.host.allocate(command.byteLength);
    try {
      for (let i = 0; i < bytes; i += 4096) data.view[i] = 1; // pages that were never written are all the same zeros
      new Float64Array(region.view.buffer, region.view.byteOffset, command.length).set(command);
      const speeds: number[] = [];
      for (let pass = 0; pass < 7; pass++) {
        const started = performance.now();
        await this.host.run({ commands: region.address, count: 1, scratch: 0, scratchBytes: 0, tokens: 1 });
        speeds.push(bytes / ((performance.now() - started) / 1000));
      }
      speeds.sort((a, b) => a - b);
      return speeds[speeds.length >> 1]!;
    } finally {
      for (const each of [data, sums, region]) each.free();
    }
  }

  /** Bytes of weights, as mapped from their files or as held in memory. */
  get weightBytes(): number {
    return this.#regions.reduce((bytes, region) => bytes + region.bytes, this.#matrixBytes);
  }

  compile(graph: Graph, options: CompileOptions): Program {
    const program = new KernelProgram(graph, this, (name) => this.#weight(name), options);
    this.#programs.push(program);
    return program;
  }

  /** Throws a DeviceError (code "disposed") when the device was disposed of. */
  requireOpen(): void {
    if (this.#isDisposed) throw deviceDisposed();
  }

  /** Steps that run or wait fail (code "disposed"). Memory is freed when the workers are out of it. */
  [Symbol.dispose](): void {
    if (this.#isDisposed) return;
    this.#isDisposed = true;
    this.host[Symbol.dispose]();
    this.host.whenEnded(() => {
      for (const program of this.#programs) program[Symbol.dispose]();
      for (const region of this.#regions) region.free();
      this.#weights.clear();
    });
  }

  #weight(name: string): PlacedWeight {
    const weight = this.#weights.get(name);
    if (weight !== undefined) return weight;
    throw new DeviceError(`The program needs the weight "${name}", which is not there`);
  }

  #allocate(bytes: number): Region {
    const region = this.host.allocate(bytes);
    this.#regions.push(region);
    return region;
  }
}
