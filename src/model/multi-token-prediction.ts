/**
 * The multi-token-prediction module (DeepSeek-V3 report, section 2.2; in V4 with residual streams): from the streams that
 * leave the last layer at position i and the embedding of token i + 1 to the logits of token i + 2. Its own part of the graph,
 * with sizes of its own: a PAIR is a position and the token after it.
 *   streams [tokens, hcMult, hiddenSize] of this step, pair.tokenIds [pairs] (those at i + 1), pair.positions [pairs] (i)
 *   -> "draft.logits" [drafts, vocabSize]
 * One ordinary window-only layer with routed experts, and a window of its own. The rope position of a pair is i, that of the
 * hidden state.
 *
 * A step of the model completes the pairs of its tokens, from the one before its first token on; nothing is drafted. To draft, a
 * step without tokens computes one pair a sequence. What leaves the module stands in for the streams of the next position, so that
 * it drafts the token after; the model itself writes over it when it gets there.
 */
import type { Graph, Tensor } from "../tensor/graph.ts";
import { add } from "../tensor/ops/add.ts";
import { gatherRows } from "../tensor/ops/gather-rows.ts";
import { linear } from "../tensor/ops/linear.ts";
import { repeatStreams } from "../tensor/ops/repeat-streams.ts";
import { rmsNorm } from "../tensor/ops/rms-norm.ts";
import { writeRows } from "../tensor/ops/write-rows.ts";
import { block } from "./block.ts";
import type { V4Config } from "./config.ts";
import { collapseHead } from "./hyper-connections.ts";
import type { Step } from "./step.ts";
import { embedding, outputLogits } from "./vocabulary.ts";

/** Records module `module` behind the main model, whose embedding and output matrix it uses. */
export function recordMultiTokenPrediction(g: Graph, config: V4Config, streams: Tensor, module = 0): void {
  const name = `mtp.${module}`;
  const { hiddenSize, hcMult, rmsNormEps: eps } = config;
  const pairs = pairInputs(g);
  const project = (x: Tensor, norm: string, matrix: string) => {
    const normed = g.call(rmsNorm, [x, g.weight(`${name}.${norm}.weight`, [hiddenSize])], { eps });
    return g.call(linear, [normed, g.weight(`${name}.${matrix}.weight`, [hiddenSize, hiddenSize])], {});
  };

  const rows = streamRows(g, config, name, streams);
  const incoming = g.call(gatherRows, [rows, g.input("pair.streamRows", "i32", ["pairs"])], {});
  const next = project(embedding(g, config, pairs.tokenIds), "enorm", "e_proj");
  const hidden = project(g.reshape(incoming, ["pairs", hcMult, hiddenSize]), "hnorm", "h_proj");
  const joined = g.call(add, [hidden, g.call(repeatStreams, [next], { count: hcMult })], {});
  const outgoing = g.label(`${name}.streams`, block(g, config, { name, ratio: 0, hashRouted: false }, joined, pairs));

  const drafted = g.call(gatherRows, [outgoing, g.input("draft.pairs", "i32", ["drafts"])], {});
  const flat = g.reshape(drafted, ["drafts", hcMult * hiddenSize]);
  g.call(writeRows, [rows, flat, g.input("draft.streamSlots", "i32", ["drafts"])], {});
  const collapsed = collapseHead(g, config, `${name}.hc_head`, drafted);
  g.output("draft.logits", outputLogits(g, config, `${name}.norm.weight`, collapsed, `${name}.hidden`));
}

function pairInputs(g: Graph): Step {
  const input = (name: string) => g.input(`pair.${name}`, "i32", ["pairs"]);
  return { tokenIds: input("tokenIds"), positions: input("positions"), sequences: input("sequences"), isLate: true };
}

/** The streams of every position, in a cache: a pair needs those of the position before the step. */
function streamRows(g: Graph, { hcMult, hiddenSize }: V4Config, name: string, streams: Tensor): Tensor {
  const width = hcMult * hiddenSize;
  const cache = g.cache(`${name}.streams`, width, { tokensPerRow: 1, reach: 1 });
  return g.call(writeRows, [cache, g.reshape(streams, [streams.shape[0]!, width]), g.slots(cache)], {});
}
