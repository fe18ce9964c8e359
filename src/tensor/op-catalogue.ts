/** Every op there is. Devices and their tests walk through this list; a new op is added here. */
import type { AnyOp } from "./graph.ts";
import { add } from "./ops/add.ts";
import { addBiasOfToken } from "./ops/add-bias-of-token.ts";
import { axialRope } from "./ops/axial-rope.ts";
import { candidateBlocks } from "./ops/candidate-blocks.ts";
import { collapseStreams } from "./ops/collapse-streams.ts";
import { combineStreams } from "./ops/combine-streams.ts";
import { compressEntries } from "./ops/compress-entries.ts";
import { engramUpdate } from "./ops/engram-update.ts";
import { expandStreams } from "./ops/expand-streams.ts";
import { experts } from "./ops/experts.ts";
import { fullAttention } from "./ops/full-attention.ts";
import { gatedHalves } from "./ops/gated-halves.ts";
import { gatherCells } from "./ops/gather-cells.ts";
import { gatherRows } from "./ops/gather-rows.ts";
import { gelu } from "./ops/gelu.ts";
import { groupedLinear } from "./ops/grouped-linear.ts";
import { hyperConnectionCoefficients } from "./ops/hyper-connection-coefficients.ts";
import { hyperConnectionHead } from "./ops/hyper-connection-head.ts";
import { imageSpan } from "./ops/image-span.ts";
import { indexerScores } from "./ops/indexer-scores.ts";
import { joinColumns } from "./ops/join-columns.ts";
import { linear } from "./ops/linear.ts";
import { placeRows } from "./ops/place-rows.ts";
import { repeatStreams } from "./ops/repeat-streams.ts";
import { rmsNorm } from "./ops/rms-norm.ts";
import { rope } from "./ops/rope.ts";
import { roundBlocks } from "./ops/round-blocks.ts";
import { routerScores } from "./ops/router-scores.ts";
import { routingWeights } from "./ops/routing-weights.ts";
import { scale } from "./ops/scale.ts";
import { sparseAttention } from "./ops/sparse-attention.ts";
import { swiglu } from "./ops/swiglu.ts";
import { topK } from "./ops/top-k.ts";
import { writeRows } from "./ops/write-rows.ts";

export const opCatalogue: readonly AnyOp[] = [
  add,
  addBiasOfToken,
  candidateBlocks,
  axialRope,
  collapseStreams,
  combineStreams,
  compressEntries,
  engramUpdate,
  expandStreams,
  experts,
  fullAttention,
  gatedHalves,
  gatherCells,
  gatherRows,
  gelu,
  groupedLinear,
  hyperConnectionCoefficients,
  hyperConnectionHead,
  imageSpan,
  indexerScores,
  joinColumns,
  linear,
  placeRows,
  repeatStreams,
  rmsNorm,
  rope,
  roundBlocks,
  routerScores,
  routingWeights,
  scale,
  sparseAttention,
  swiglu,
  topK,
  writeRows,
];
