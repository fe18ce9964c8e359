/**
 * The builder: calling an op records a node, nothing runs. A graph is recorded once for a model; a device compiles it
 * into a program that is replayed every step with run-time sizes and tables.
 *
 * A tensor is a value in one storage: an input of the step, a weight, a cache, or the output of a node. A view (`reshape`)
 * is another tensor in the same storage.
 */
import { ShapeError } from "../errors.ts";
import type { DType, Op, TensorType } from "./op.ts";
import { type CacheLayout, layoutName, rowsPerPage } from "./paging.ts";
import { type Dim, formatShape, type Shape } from "./shape.ts";

export type Storage =
  | { readonly kind: "input"; readonly name: string; readonly type: TensorType }
  | { readonly kind: "weight"; readonly name: string; readonly type: TensorType }
  | { readonly kind: "cache"; readonly name: string; readonly width: number; readonly layout: CacheLayout }
  | { readonly kind: "intermediate"; readonly type: TensorType };

export interface Tensor extends TensorType {
  readonly storage: Storage;
}

/** A cache tensor has the shape ["rows", width]; its number of rows belongs to the device. */
export interface CacheTensor extends Tensor {
  readonly storage: Extract<Storage, { kind: "cache" }>;
}

// biome-ignore lint/suspicious/noExplicitAny: a node holds an op of any attributes together with its own attributes
export type AnyOp = Op<any>;

export interface GraphNode {
  readonly op: AnyOp;
  readonly inputs: readonly Tensor[];
  readonly outputs: readonly Tensor[];
  readonly attributes: unknown;
}

export class Graph {
  readonly nodes: GraphNode[] = [];
  readonly inputs = new Map<string, Tensor>();
  readonly weights = new Map<string, Tensor>();
  readonly caches = new Map<string, CacheTensor>();
  /** Results that a program keeps until the next step. */
  readonly outputs = new Map<string, Tensor>();
  /** Names of intermediate values, for tests, profiles and people; they cost nothing unless a program is told to keep one. */
  readonly labels = new Map<string, Tensor>();

  /** A table or a list of numbers that the caller provides every step. */
  input(name: string, dtype: DType, shape: Shape): Tensor {
    return once(this.inputs, name, { dtype, shape }, () => {
      const type = { dtype, shape };
      return { ...type, storage: { kind: "input", name, type } };
    });
  }

  weight(name: string, shape: readonly number[], dtype: DType = "f32"): Tensor {
    return once(this.weights, name, { dtype, shape }, () => {
      const type = { dtype, shape };
      return { ...type, storage: { kind: "weight", name, type } };
    });
  }

  /** Rows of `width` values that outlive the step; which row belongs to whom, the tables of its layout say. */
  cache(name: string, width: number, layout: CacheLayout): CacheTensor {
    if (this.caches.has(name)) throw new ShapeError(`The cache "${name}" is declared twice`);
    const tensor: CacheTensor = {
      dtype: "f32",
      shape: ["rows", width],
      storage: { kind: "cache", name, width, layout },
    };
    this.caches.set(name, tensor);
    return tensor;
  }

  /** The page numbers of every sequence of the step for the caches of a layout: [sequences, width of the table]. */
  pageTable(cache: Tensor): Tensor {
    const name = layoutName(layoutOf(cache));
    return this.input(`pages.${name}`, "i32", ["sequences", `pages.${name}`]);
  }

  /** Pool rows where the new rows of this step go, for the caches of a layout. */
  slots(cache: Tensor): Tensor {
    const layout = layoutOf(cache);
    return this.input(`slots.${layoutName(layout)}`, "i32", [newRows(layout)]);
  }

  apply<Attributes>(op: Op<Attributes>, inputs: readonly Tensor[], attributes: Attributes): readonly Tensor[] {
    const outputs = op.infer(inputs, attributes).map((type, index): Tensor => {
      const storage: Storage = op.writesInput && index === 0 ? inputs[0]!.storage : { kind: "intermediate", type };
      return { ...type, storage };
    });
    this.nodes.push({ op, inputs, outputs, attributes });
    return outputs;
  }

  /** As `apply`, for an op with one output (or of which only the first is wanted). */
  call<Attributes>(op: Op<Attributes>, inputs: readonly Tensor[], attributes: Attributes): Tensor {
    return this.apply(op, inputs, attributes)[0]!;
  }

  /** The same values in another shape. */
  reshape(tensor: Tensor, shape: Shape): Tensor {
    const [before, after] = [tensor.shape, shape].map(elementsPerSize);
    if (before !== after) {
      throw new ShapeError(
        `Cannot view ${formatShape(tensor.shape)} as ${formatShape(shape)}: other number of elements`,
      );
    }
    return { ...tensor, shape };
  }

  label(name: string, tensor: Tensor): Tensor {
    this.labels.set(name, tensor);
    return tensor;
  }

  output(name: string, tensor: Tensor): void {
    this.outputs.set(name, tensor);
  }
}

/** The different layouts among the caches of a graph. */
export function cacheLayouts(graph: Graph): CacheLayout[] {
  const layouts = [...graph.caches.values()].map((cache) => cache.storage.layout);
  return [...new Map(layouts.map((layout) => [layoutName(layout), layout])).values()];
}

/** The named size of the rows that a step adds to the caches of a layout: one a token, a pair of tokens, or a group that closes. */
export function newRows({ tokensPerRow, isLate }: CacheLayout): Dim {
  if (isLate) return "pairs";
  return tokensPerRow === 1 ? "tokens" : `closed.${tokensPerRow}`;
}

export function layoutOf(cache: Tensor): CacheLayout {
  if (cache.storage.kind !== "cache") throw new ShapeError("A cache was expected, not another tensor");
  return cache.storage.layout;
}

export function pageRowsOf(cache: Tensor): number {
  return rowsPerPage(layoutOf(cache));
}

function once(map: Map<string, Tensor>, name: string, { dtype, shape }: TensorType, make: () => Tensor): Tensor {
  const known = map.get(name);
  if (known === undefined) {
    const tensor = make();
    map.set(name, tensor);
    return tensor;
  }
  if (known.dtype !== dtype || formatShape(known.shape) !== formatShape(shape)) {
    throw new ShapeError(`"${name}" is used as ${formatShape(known.shape)} and as ${formatShape(shape)}`);
  }
  return known;
}

/** Product of the numbers and the sorted names: equal for two shapes of the same elements. */
function elementsPerSize(shape: Shape): string {
  const product = shape.reduce<number>((total, dim) => (typeof dim === "number" ? total * dim : total), 1);
  return [product, ...shape.filter((dim) => typeof dim === "string").sort()].join("*");
}
