/**
 * The multi-token-prediction module (DeepSeek-V3 report, section 2.2; in V4 with residual streams): from the streams that
 * leave the last layer at position i and the embedding of token i + 1 to the logits of token i + 2
 *   streams [tokens, hcMult, hiddenSize], tokenIds [tokens] (those at i + 1), positions [tokens] (i)
 *   -> streams, logits [outputs, vocabSize]
 * One ordinary window-only layer with routed experts, and a window of its own. The rope position of a pair is i, that of the
 * hidden state. Its outgoing streams, fed back with the drafted token, draft the token after.
 */
import { Graph, type Tensor } from "../tensor/graph.ts";
import { add } from "../tensor/ops/add.ts";
import { gatherRows } from "../tensor/ops/gather-rows.ts";
import { linear } from "../tensor/ops/linear.ts";
import { repeatStreams } from "../tensor/ops/repeat-streams.ts";
import { rmsNorm } from "../tensor/ops/rms-norm.ts";
import { block } from "./block.ts";
import type { V4Config } from "./config.ts";
import { collapseHead } from "./hyper-connections.ts";
import { stepInputs } from "./step.ts";
import { embedding, outputLogits } from "./transformer.ts";

/** Records the graph of MTP module `module`; embedding and output matrix are those of the main model. */
export function recordMultiTokenPrediction(config: V4Config, module = 0): Graph {
  const g = new Graph();
  const name = `mtp.${module}`;
  const { hiddenSize, hcMult, rmsNormEps: eps } = config;
  const step = stepInputs(g);
  const incoming = g.input("streams", "f32", ["tokens", hcMult, hiddenSize]);
  const project = (x: Tensor, norm: string, matrix: string) => {
    const normed = g.call(rmsNorm, [x, g.weight(`${name}.${norm}.weight`, [hiddenSize])], { eps });
    return g.call(linear, [normed, g.weight(`${name}.${matrix}.weight`, [hiddenSize, hiddenSize])], {});
  };

  const next = project(embedding(g, config, step.tokenIds), "enorm", "e_proj");
  const hidden = project(incoming, "hnorm", "h_proj");
  const joined = g.call(add, [hidden, g.call(repeatStreams, [next], { count: hcMult })], {});
  const streams = block(g, config, { name, ratio: 0, hashRouted: false }, joined, step);
  g.output("streams", streams);

  const chosen = g.call(gatherRows, [streams, g.input("outputRows", "i32", ["outputs"])], {});
  const collapsed = collapseHead(g, config, `${name}.hc_head`, chosen);
  g.output("logits", outputLogits(g, config, `${name}.norm.weight`, collapsed, `${name}.hidden`));
  return g;
}
