/**
 * Hyper-connections of V4.1 (mHC, arXiv 2512.24880, with coefficients that are handed on): a sublayer reads the streams with the
 * `pre` that the sublayer before computed; its own goes to the next one, in the end to the head. The first reads stream 0 alone.
 *   streams [tokens, n, hiddenSize], pre [tokens, n]
 */
import type { Graph, Tensor } from "../../tensor/graph.ts";
import { collapseStreams } from "../../tensor/ops/collapse-streams.ts";
import { combineStreams } from "../../tensor/ops/combine-streams.ts";
import { expandStreams } from "../../tensor/ops/expand-streams.ts";
import type { V41Config } from "../config.ts";
import { coefficients } from "../hyper-connections.ts";

export interface Carried {
  readonly streams: Tensor;
  /** Undefined at the beginning: stream 0. */
  readonly pre: Tensor | undefined;
}

export function carriedConnection(
  g: Graph,
  config: V41Config,
  name: string,
  { streams, pre }: Carried,
  sublayer: (x: Tensor) => Tensor,
): Carried {
  const own = coefficients(g, config, name, streams);
  const collapsed = g.label(`${name}.collapsed`, collapse(g, { streams, pre }));
  return { streams: g.call(expandStreams, [streams, sublayer(collapsed), own.post, own.mix], {}), pre: own.pre };
}

export function collapse(g: Graph, { streams, pre }: Carried): Tensor {
  if (pre !== undefined) return g.call(collapseStreams, [streams, pre], {});
  const n = streams.shape[1] as number;
  return g.call(combineStreams, [streams], { weights: Array.from({ length: n }, (_, j) => (j === 0 ? 1 : 0)) });
}

/** What a drafter reads: the mean of the streams [tokens, hiddenSize]. */
export function meanOfStreams(g: Graph, streams: Tensor): Tensor {
  const n = streams.shape[1] as number;
  return g.call(combineStreams, [streams], { weights: new Array<number>(n).fill(1 / n) });
}
