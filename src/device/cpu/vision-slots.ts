/** Slots of the ops of the vision tower, in the order that is described at the kernels (kernels/vision-ops.h). */
import type { AxialRopeAttributes } from "../../tensor/ops/axial-rope.ts";
import { countElements } from "../../tensor/shape.ts";

/** The order is that of the end of the table in kernels/ops.c. */
export const visionOpNames = [
  "axialRope",
  "fullAttention",
  "gatedHalves",
  "gelu",
  "gatherCells",
  "imageSpan",
  "placeRows",
] as const;
export type VisionOpName = (typeof visionOpNames)[number];

export function isVisionOp(name: string): name is VisionOpName {
  return (visionOpNames as readonly string[]).includes(name);
}

/** Addresses, shapes and attributes of one node. */
interface VisionNode {
  readonly ins: readonly number[];
  readonly outs: readonly number[];
  readonly shapes: readonly (readonly number[])[];
  readonly outShapes: readonly (readonly number[])[];
  readonly attributes: unknown;
  readonly place: { constants(values: readonly number[]): number };
}

export function visionSlotsOf(name: VisionOpName, node: VisionNode): number[] {
  const { ins, shapes, outShapes, attributes, place } = node;
  const [out] = node.outs as [number];
  const [shape] = shapes as [readonly number[]];
  switch (name) {
    case "axialRope": {
      const { frequencies, rotatedHeads } = attributes as AxialRopeAttributes;
      return [...ins, out, ...shape, place.constants(frequencies), frequencies.length, rotatedHeads];
    }
    case "fullAttention":
      return [...ins, out, shape[0]!, shape[2]!, shape[3]!];
    case "gatedHalves": {
      const width = outShapes[0]!.at(-1)!;
      return [...ins, out, countElements(outShapes[0]!) / width, width];
    }
    case "gelu":
      return [...ins, out, countElements(shape)];
    case "gatherCells":
      return [...ins, out, shapes[1]![0]!, shape[1]!, shapes[1]![1]!];
    case "imageSpan":
    case "placeRows":
      return [...ins, out, ...outShapes[0]!];
    default:
      return name satisfies never;
  }
}
