/** The scratch of a worker: what the largest unit of work takes, beside the values of a step. The layouts are those of the kernels. */
import type { Graph, Tensor } from "../../tensor/graph.ts";
import type { LinearAttributes } from "../../tensor/ops/linear.ts";
import { countElements } from "../../tensor/shape.ts";
import { roundUp, tile } from "./commands.ts";
import { mostHeadsTogether } from "./op-slots.ts";

/** The panel at the beginning of TileScratch in kernels/product.h. */
const panelBytes = 64 * 1024;
/** MOST_DOWN_TILES in kernels/matrix-ops.h: tiles of rows of experts' down matrices that are worked on together. */
const mostDownTiles = 4;
/** FULL_QUERIES in kernels/attention-ops.h. */
const fullQueries = 64;
/** Rows that are split into parts together, columns of a stretch, and bytes of a number in parts (kernels/float-tiles.h). */
const rowsInParts = 256;
const stretchColumns = 512;
const bytesInParts = 6;

/** Bytes for steps of so many rows at most; `shape`: the largest that a tensor may have. */
export function scratchBytes(graph: Graph, shape: (tensor: Tensor) => readonly number[], rows: number): number {
  // experts: of every token gate and up, and 32 hidden values, or sums of some tiles and products of one
  let most = 4 * rows * Math.max(2 * tile + 32, (mostDownTiles + 1) * tile);
  for (const { op, inputs, attributes } of graph.nodes) {
    const of = shape(inputs[0]!);
    const width = of.at(-1)!;
    let bytes = 0;
    if (op.name === "linear" && (attributes as LinearAttributes).inAnyOrder)
      bytes = partsBytes(countElements(of) / width);
    else if (op.name === "sparseAttention") bytes = attentionBytes(Math.min(of[1]!, mostHeadsTogether), width);
    else if (op.name === "indexerScores") bytes = attentionBytes(of[1]!, 0);
    else if (op.name === "fullAttention")
      bytes = Math.max(attentionBytes(fullQueries, width), attentionInPartsBytes(width));
    most = Math.max(most, bytes);
  }
  return panelBytes + roundUp(most, 64);
}

/** Of so many queries at a time: products of a tile, logits of 128 keys, three numbers and the weighted rows. */
function attentionBytes(queries: number, width: number): number {
  return 4 * queries * (tile + 128 + 3 + width);
}

/** Of a product of so many rows whose sums may have any order. */
function partsBytes(rows: number): number {
  return roundUp(Math.min(rows, rowsInParts), tile) * stretchColumns * bytesInParts;
}

/**
 * Where keys, values and 512 queries are split into parts (attend_in_parts of the kernels): parts of 128 keys and values, those of the
 * queries and of the weights of 32, then float32 logits of 32, and sums and three numbers of all queries.
 */
function attentionInPartsBytes(headDim: number): number {
  if (headDim % 32 !== 0 || headDim > 128) return 0;
  const parts = bytesInParts * ((2 * 128 + 512) * headDim + 32 * 128);
  return parts + 4 * (32 * 128 + 512 * (headDim + 3));
}
