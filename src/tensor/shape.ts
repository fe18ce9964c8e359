/**
 * Shapes of tensors in a recorded graph. A dimension is a number, or the name of a size that is known only when the
 * program runs ("tokens", "sequences", "outputs" ...). A graph is recorded once; the named sizes change from step to step.
 */
import { ShapeError } from "../errors.ts";

export type Dim = number | string;
export type Shape = readonly Dim[];

/** The value of every named size in one step, or the greatest value it may take (a limit). */
export type Sizes = Readonly<Record<string, number>>;

export function sameShape(a: Shape, b: Shape): boolean {
  return a.length === b.length && a.every((dim, axis) => dim === b[axis]);
}

export function formatShape(shape: Shape): string {
  return `[${shape.join(", ")}]`;
}

/** Throws a ShapeError unless `found` is `expected`. `what` names the tensor, `hint` says how to mend it. */
export function requireShape(what: string, found: Shape, expected: Shape, hint?: string): void {
  if (sameShape(found, expected)) return;
  throw new ShapeError(`${what} has the shape ${formatShape(found)}, expected ${formatShape(expected)}`, {
    ...(hint === undefined ? {} : { hint }),
  });
}

/** The numbers behind a shape in one step. */
export function resolveShape(shape: Shape, sizes: Sizes): number[] {
  return shape.map((dim) => {
    if (typeof dim === "number") return dim;
    const size = sizes[dim];
    if (size === undefined) throw new ShapeError(`The size "${dim}" has no value in this step`);
    return size;
  });
}

/** Elements of a shape of numbers; 1 for a scalar. */
export function countElements(shape: readonly number[]): number {
  return shape.reduce((product, dim) => product * dim, 1);
}
