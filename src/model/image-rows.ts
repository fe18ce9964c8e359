/** Images in a text: the rows that stand for them take the place of the embeddings of their tokens. */
import type { Graph, Tensor } from "../tensor/graph.ts";
import { placeRows } from "../tensor/ops/place-rows.ts";

/** [imageRows, hiddenSize]: the rows that a step takes from images. */
export const imageRowsInput = "imageRows";
/** [tokens] i32: the number of the row that stands for a token; -1 for text. */
export const imageRowOfInput = "imageRowOf";

/** embedded [tokens, hiddenSize] -> the same shape. */
export function withImageRows(g: Graph, hiddenSize: number, embedded: Tensor): Tensor {
  const rows = g.input(imageRowsInput, "f32", ["imageRows", hiddenSize]);
  return g.call(placeRows, [embedded, rows, g.input(imageRowOfInput, "i32", ["tokens"])], {});
}
