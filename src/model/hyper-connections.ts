/**
 * Manifold-constrained hyper-connections (mHC, arXiv 2512.24880): n residual streams in place of one. Around each sublayer
 * the streams are collapsed to its input, and its output goes back into them while they mix.
 *   streams [tokens, n, hiddenSize]
 * The coefficients come from ONE unweighted RMS norm over all n * hiddenSize values of a token; what is collapsed and mixed
 * are the raw streams.
 */
import type { Graph, Tensor } from "../tensor/graph.ts";
import { collapseStreams } from "../tensor/ops/collapse-streams.ts";
import { expandStreams } from "../tensor/ops/expand-streams.ts";
import { hyperConnectionCoefficients } from "../tensor/ops/hyper-connection-coefficients.ts";
import { hyperConnectionHead } from "../tensor/ops/hyper-connection-head.ts";
import { linear } from "../tensor/ops/linear.ts";
import { rmsNorm } from "../tensor/ops/rms-norm.ts";
import type { ModelConfig } from "./config.ts";

/** `name` is that of the weights: "layers.3.hc_attn" stands for layers.3.hc_attn_fn, _base and _scale. */
export function hyperConnection(
  g: Graph,
  config: ModelConfig,
  name: string,
  streams: Tensor,
  sublayer: (x: Tensor) => Tensor,
): Tensor {
  const { pre, post, mix } = coefficients(g, config, name, streams);
  const collapsed = g.label(`${name}.collapsed`, g.call(collapseStreams, [streams, pre], {}));
  return g.call(expandStreams, [streams, sublayer(collapsed), post, mix], {});
}

interface Coefficients {
  /** How the streams are collapsed [tokens, n]. */
  readonly pre: Tensor;
  /** How the sublayer's output is spread [tokens, n]. */
  readonly post: Tensor;
  /** How the streams mix [tokens, n, n]. */
  readonly mix: Tensor;
}

export function coefficients(g: Graph, config: ModelConfig, name: string, streams: Tensor): Coefficients {
  const n = config.hcMult;
  const [pre, post, mix] = g.apply(
    hyperConnectionCoefficients,
    [
      projectStreams(g, config, `${name}_fn`, streams, (2 + n) * n),
      g.weight(`${name}_base`, [(2 + n) * n]),
      g.weight(`${name}_scale`, [3]),
    ],
    { streams: n, iterations: config.hcSinkhornIterations, eps: config.hcEps },
  );
  g.label(`${name}.pre`, pre!);
  g.label(`${name}.post`, post!);
  g.label(`${name}.mix`, mix!);
  return { pre: pre!, post: post!, mix: mix! };
}

/** The end of the network: the streams become one vector [tokens, hiddenSize]; nothing goes back. */
export function collapseHead(g: Graph, config: ModelConfig, name: string, streams: Tensor): Tensor {
  const n = config.hcMult;
  const m = projectStreams(g, config, `${name}_fn`, streams, n);
  const pre = g.call(hyperConnectionHead, [m, g.weight(`${name}_base`, [n]), g.weight(`${name}_scale`, [1])], {
    eps: config.hcEps,
  });
  return g.call(collapseStreams, [streams, pre], {});
}

function projectStreams(g: Graph, config: ModelConfig, weight: string, streams: Tensor, out: number): Tensor {
  const width = config.hcMult * config.hiddenSize;
  const normed = g.call(rmsNorm, [g.reshape(streams, [streams.shape[0]!, width])], { eps: config.rmsNormEps });
  return g.call(linear, [normed, g.weight(weight, [out, width])], {});
}
