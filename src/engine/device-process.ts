/** The child process of a ProcessDevice: it holds the real device and does what it is asked, in the order of the requests. */
import type { Device, Program, StepOutcome, StepValues, StoredMatrix } from "../device/device.ts";
import { DeviceError, FreeholdError } from "../errors.ts";
import { MemorySource } from "../format/byte-source.ts";
import { type CacheTensor, Graph, type GraphNode, type Tensor } from "../tensor/graph.ts";
import { opCatalogue } from "../tensor/op-catalogue.ts";
import type { Sizes } from "../tensor/shape.ts";
import { chooseDevice, type DeviceOptions } from "./choose-device.ts";
import { FileSource } from "./file-source.ts";

export type StoredPart = { readonly offset: number; readonly length: number } & (
  | { readonly path: string }
  | { readonly bytes: Uint8Array }
);

interface SentMatrix extends Omit<StoredMatrix, "parts"> {
  readonly parts: readonly { readonly data: StoredPart; readonly scales: StoredPart | undefined }[];
}

interface RecordedGraph {
  readonly nodes: readonly (Omit<GraphNode, "op"> & { readonly op: string })[];
  readonly inputs: ReadonlyMap<string, Tensor>;
  readonly weights: ReadonlyMap<string, Tensor>;
  readonly caches: ReadonlyMap<string, CacheTensor>;
  readonly outputs: ReadonlyMap<string, Tensor>;
  readonly labels: ReadonlyMap<string, Tensor>;
}

export type Request =
  | { readonly kind: "start"; readonly options: DeviceOptions }
  | { readonly kind: "setWeight"; readonly name: string; readonly data: Float32Array | Int32Array }
  | { readonly kind: "setMatrix"; readonly name: string; readonly matrix: SentMatrix }
  | { readonly kind: "readCeiling" }
  | {
      readonly kind: "compile";
      readonly program: number;
      readonly graph: RecordedGraph;
      readonly limits: Sizes;
      readonly keep: readonly string[];
    }
  | { readonly kind: "reserve"; readonly program: number; readonly limits: Sizes }
  | ({ readonly kind: "run"; readonly program: number } & StepValues)
  | { readonly kind: "resizeCaches"; readonly program: number; readonly layout: string; readonly rows: number }
  | {
      readonly kind: "copyCacheRows";
      readonly program: number;
      readonly layout: string;
      readonly from: number;
      readonly to: number;
      readonly count: number;
    }
  | {
      readonly kind: "readCache";
      readonly program: number;
      readonly name: string;
      readonly firstRow: number;
      readonly rows: number;
    }
  | {
      readonly kind: "writeCache";
      readonly program: number;
      readonly name: string;
      readonly firstRow: number;
      readonly data: Float32Array | Float64Array;
    };

/** What the parent sends: a request, or that the request with this number shall end early. */
export type Message = { readonly id: number } & (Request | { readonly kind: "stop" });

/** What a run gives: no outputs when it was stopped. */
export interface StepResult {
  readonly outcome: StepOutcome;
  readonly outputs: Readonly<Record<string, Float32Array | Float64Array | Int32Array>>;
  readonly memoryBytes: number;
}

export interface Response {
  readonly id: number;
  readonly value?: unknown;
  readonly error?: { readonly message: string } & Pick<FreeholdError, "code" | "where" | "hint">;
}

let device: Device | undefined;
const programs = new Map<number, { program: Program; kept: readonly string[] }>();
const files = new Map<string, Promise<FileSource>>();

async function answer(request: Request, signal: AbortSignal): Promise<unknown> {
  switch (request.kind) {
    case "start": {
      device = await chooseDevice(request.options);
      const { name, kernels, threads } = device;
      return { name, kernels, threads };
    }
    case "setWeight":
      return device!.setWeight(request.name, request.data);
    case "setMatrix": {
      const parts = await Promise.all(
        request.matrix.parts.map(async ({ data, scales }) => ({
          data: await received(data),
          scales: scales && (await received(scales)),
        })),
      );
      return (await device!.setMatrix?.(request.name, { ...request.matrix, parts })) ?? false;
    }
    case "readCeiling":
      return (await device!.readCeiling?.()) ?? 0;
    case "compile": {
      const graph = rebuild(request.graph);
      const program = device!.compile(graph, { limits: request.limits, keep: request.keep });
      programs.set(request.program, { program, kept: [...graph.outputs.keys(), ...request.keep] });
      return undefined;
    }
    case "reserve":
      return programOf(request.program).reserve(request.limits);
    case "run": {
      const { program, kept } = programs.get(request.program)!;
      const outcome = await program.run(request, signal);
      const readable = outcome === "done" ? kept : [];
      const outputs = Object.fromEntries(readable.map((name) => [name, program.read(name)]));
      return { outcome, outputs, memoryBytes: program.memoryBytes } satisfies StepResult;
    }
    case "resizeCaches":
      return programOf(request.program).resizeCaches(request.layout, request.rows);
    case "copyCacheRows":
      return programOf(request.program).copyCacheRows(request.layout, request.from, request.to, request.count);
    case "readCache":
      return programOf(request.program).readCache(request.name, request.firstRow, request.rows);
    case "writeCache":
      return programOf(request.program).writeCache(request.name, request.firstRow, request.data);
    default:
      return request satisfies never;
  }
}

function programOf(id: number): Program {
  return programs.get(id)!.program;
}

/** The graph with the ops that the names stand for. */
function rebuild({ nodes, ...maps }: RecordedGraph): Graph {
  const graph = new Graph();
  for (const { op: name, ...node } of nodes) {
    const op = opCatalogue.find((candidate) => candidate.name === name);
    if (op === undefined) throw new DeviceError(`There is no op "${name}"`);
    graph.nodes.push({ ...node, op });
  }
  for (const [name, tensor] of maps.inputs) graph.inputs.set(name, tensor);
  for (const [name, tensor] of maps.weights) graph.weights.set(name, tensor);
  for (const [name, tensor] of maps.caches) graph.caches.set(name, tensor);
  for (const [name, tensor] of maps.outputs) graph.outputs.set(name, tensor);
  for (const [name, tensor] of maps.labels) graph.labels.set(name, tensor);
  return graph;
}

async function received(part: StoredPart) {
  if ("bytes" in part) return { source: new MemorySource("bytes", part.bytes), offset: 0, length: part.length };
  let file = files.get(part.path);
  if (file === undefined) {
    file = FileSource.open(part.path);
    files.set(part.path, file);
  }
  return { source: await file, offset: part.offset, length: part.length };
}

/** Requests are answered one after another, in their order; that one shall stop is heard at once. */
let last: Promise<void> = Promise.resolve();
const stops = new Map<number, AbortController>();
process.on("message", (message: Message) => {
  const { id } = message;
  if (message.kind === "stop") {
    stops.get(id)?.abort();
    return;
  }
  const stop = new AbortController();
  stops.set(id, stop);
  last = last.then(async () => {
    const response = await answer(message, stop.signal).then(
      (value): Response => ({ id, value }),
      (error): Response => {
        const unknown = { code: "internal", where: undefined, hint: undefined };
        const { code, where, hint } = error instanceof FreeholdError ? error : unknown;
        return { id, error: { message: String(error?.message ?? error), code, where, hint } };
      },
    );
    stops.delete(id);
    // A caller that disposed of the device hears no answer.
    if (process.connected) process.send!(response, () => {});
  });
});
process.on("disconnect", () => process.exit(0));
