/**
 * A device in a child process: native code that crashes takes the child with it, and the caller gets an error. Tokenizer, sampling
 * and sessions stay in the caller's process; steps and logits go through the channel between the two.
 */
import { type ChildProcess, fork } from "node:child_process";
import { fileURLToPath } from "node:url";
import {
  type CompileOptions,
  type Device,
  type Program,
  type StepOutcome,
  type StepValues,
  type StoredBytes,
  type StoredMatrix,
  withLateInputs,
} from "../device/device.ts";
import { DeviceError } from "../errors.ts";
import type { Graph } from "../tensor/graph.ts";
import type { Sizes } from "../tensor/shape.ts";
import type { DeviceOptions } from "./choose-device.ts";
import type { Message, Request, Response, StepResult, StoredPart } from "./device-process.ts";
import { FileSource } from "./file-source.ts";
import { withoutUndefined } from "./without-undefined.ts";

type Numbers = Float32Array | Float64Array | Int32Array;

export class ProcessDevice implements Device {
  readonly name: string;
  readonly kernels: string;
  readonly threads: number;
  readonly #channel: Channel;
  readonly #weightBytes = new Map<string, number>();

  private constructor(
    channel: Channel,
    { name, kernels, threads }: { name: string; kernels: string; threads: number },
  ) {
    this.#channel = channel;
    this.name = name;
    this.kernels = `${kernels}, in a process of its own`;
    this.threads = threads;
  }

  /** Starts the child and chooses its device; throws what choosing a device throws. */
  static async start(options: DeviceOptions): Promise<ProcessDevice> {
    const channel = new Channel();
    const description = await channel.ask({ kind: "start", options });
    return new ProcessDevice(channel, description as { name: string; kernels: string; threads: number });
  }

  /** The number of the child process. */
  get pid(): number | undefined {
    return this.#channel.pid;
  }

  setWeight(name: string, data: Float32Array | Int32Array): void {
    this.#weightBytes.set(name, data.byteLength);
    this.#channel.tell({ kind: "setWeight", name, data });
  }

  async setMatrix(name: string, matrix: StoredMatrix): Promise<boolean> {
    const parts = await Promise.all(
      matrix.parts.map(async ({ data, scales }) => ({
        data: await sendable(data),
        scales: scales && (await sendable(scales)),
      })),
    );
    const bytes = matrix.parts.reduce((sum, { data, scales }) => sum + data.length + (scales?.length ?? 0), 0);
    const isTaken = (await this.#channel.ask({ kind: "setMatrix", name, matrix: { ...matrix, parts } })) as boolean;
    if (isTaken) this.#weightBytes.set(name, bytes);
    return isTaken;
  }

  get weightBytes(): number {
    return this.#weightBytes.values().reduce((sum, bytes) => sum + bytes, 0);
  }

  bytesOfWeight(name: string): number {
    return this.#weightBytes.get(name) ?? 0;
  }

  async readCeiling(): Promise<number> {
    return (await this.#channel.ask({ kind: "readCeiling" })) as number;
  }

  compile(graph: Graph, { limits, keep }: CompileOptions): Program {
    return new ProcessProgram(graph, this.#channel, limits, keep ?? []);
  }

  [Symbol.dispose](): void {
    this.#channel.close();
  }
}

let programs = 0;

class ProcessProgram implements Program {
  readonly graph: Graph;
  readonly #channel: Channel;
  readonly #id = programs++;
  #outputs: Readonly<Record<string, Numbers>> = {};
  #memoryBytes = 0;

  constructor(graph: Graph, channel: Channel, limits: Sizes, keep: readonly string[]) {
    this.graph = graph;
    this.#channel = channel;
    // Ops are functions: their names travel. All else is plain data whose shared parts stay shared.
    const { inputs, weights, caches, outputs, labels } = graph;
    const nodes = graph.nodes.map(({ op, ...node }) => ({ ...node, op: op.name }));
    const recorded = { nodes, inputs, weights, caches, outputs, labels };
    channel.tell({ kind: "compile", program: this.#id, graph: recorded, limits, keep });
  }

  reserve(limits: Sizes): void {
    this.#channel.tell({ kind: "reserve", program: this.#id, limits });
  }

  async run(step: StepValues, signal?: AbortSignal): Promise<StepOutcome> {
    this.#outputs = {};
    if (signal?.aborted) return "stopped";
    const { sizes, inputs } = await withLateInputs(step);
    const result = await this.#channel.ask({ kind: "run", program: this.#id, sizes, inputs }, signal);
    const { outcome, outputs, memoryBytes } = result as StepResult;
    this.#outputs = outputs;
    this.#memoryBytes = memoryBytes;
    return outcome;
  }

  read(name: string): Numbers {
    const output = this.#outputs[name];
    if (output !== undefined) return output;
    throw new DeviceError(`The program has no output "${name}", or no step has ended whole`);
  }

  resizeCaches(layout: string, rows: number): void {
    this.#channel.tell({ kind: "resizeCaches", program: this.#id, layout, rows });
  }

  copyCacheRows(layout: string, from: number, to: number, count: number): void {
    this.#channel.tell({ kind: "copyCacheRows", program: this.#id, layout, from, to, count });
  }

  async readCache(name: string, firstRow: number, rows: number): Promise<Float32Array | Float64Array> {
    const values = await this.#channel.ask({ kind: "readCache", program: this.#id, name, firstRow, rows });
    return values as Float32Array | Float64Array;
  }

  writeCache(name: string, firstRow: number, data: Float32Array | Float64Array): void {
    this.#channel.tell({ kind: "writeCache", program: this.#id, name, firstRow, data });
  }

  get memoryBytes(): number {
    return this.#memoryBytes;
  }
}

/** Requests to the child and their answers. Once the child is gone every request fails with the reason. */
class Channel {
  readonly #child: ChildProcess;
  readonly #waiting = new Map<number, PromiseWithResolvers<unknown>>();
  #next = 0;
  #gone: DeviceError | undefined;

  constructor() {
    const name = import.meta.url.endsWith(".ts") ? "./device-process.ts" : "./device-process.js";
    const file = fileURLToPath(new URL(name, import.meta.url));
    // Options of this program's command line, such as --input-type, are not for the child.
    this.#child = fork(file, {
      serialization: "advanced",
      execArgv: [],
      stdio: ["ignore", "inherit", "inherit", "ipc"],
    });
    this.#child.on("message", (response: Response) => this.#settle(response));
    this.#child.on("error", (error) => this.#fail(`cannot be reached: ${error.message}`));
    this.#child.on("exit", (code, signal) => this.#fail(`ended with ${signal ?? `status ${code}`}`));
    this.#keepAlive();
  }

  get pid(): number | undefined {
    return this.#child.pid;
  }

  /** An aborted `signal` tells the child to end the request early; the answer says what came of that. */
  async ask(request: Request, signal?: AbortSignal): Promise<unknown> {
    if (this.#gone !== undefined) throw this.#gone;
    const id = this.#next++;
    const answer = Promise.withResolvers<unknown>();
    this.#waiting.set(id, answer);
    this.#keepAlive();
    this.#send({ id, ...request });
    const stop = () => this.#send({ id, kind: "stop" });
    signal?.addEventListener("abort", stop);
    try {
      return await answer.promise;
    } finally {
      signal?.removeEventListener("abort", stop);
    }
  }

  /** A request whose answer nobody waits for: a failure is reported by the next one that somebody waits for. */
  tell(request: Request): void {
    this.ask(request).catch((error) => {
      this.#gone ??= error;
    });
  }

  #send(message: Message): void {
    this.#child.send(message);
  }

  close(): void {
    this.#gone ??= new DeviceError("The device was disposed of", { code: "disposed" });
    // Nobody waits for the child's end: it may be in the middle of a step.
    for (const answer of this.#waiting.values()) answer.reject(this.#gone);
    this.#waiting.clear();
    this.#keepAlive();
    if (this.#child.connected) this.#child.disconnect();
    // It holds nothing that is to be kept, and a step on its threads would hold up an orderly end.
    this.#child.kill("SIGKILL");
  }

  #settle({ id, value, error }: Response): void {
    const answer = this.#waiting.get(id);
    this.#waiting.delete(id);
    this.#keepAlive();
    if (error === undefined) answer?.resolve(value);
    else answer?.reject(new DeviceError(error.message, withoutUndefined(error)));
  }

  #fail(how: string): void {
    this.#gone ??= new DeviceError(`The process of the device ${how}`, {
      code: "device-process",
      hint: "Load the model again; what was computed in sessions is lost",
    });
    for (const answer of this.#waiting.values()) answer.reject(this.#gone);
    this.#waiting.clear();
    this.#keepAlive();
  }

  /** An idle child does not keep the caller's process alive; a request does. */
  #keepAlive(): void {
    const isBusy = this.#waiting.size > 0;
    if (isBusy) this.#child.ref();
    else this.#child.unref();
    if (isBusy) this.#child.channel?.ref();
    else this.#child.channel?.unref();
  }
}

/** Bytes of a file go as its path, so that the child maps the file itself; others as they are. */
async function sendable({ source, offset, length }: StoredBytes): Promise<StoredPart> {
  if (source instanceof FileSource) return { path: source.path, offset, length };
  return { bytes: await source.read(offset, length), offset: 0, length };
}
