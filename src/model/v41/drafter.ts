/**
 * DSpark, the drafter of V4.1: a few layers that propose a block of tokens at once, from features of the model itself. Its own
 * part of the model's graph:
 *   features [tokens, hiddenSize] of each feature layer: the mean of the streams in front of its attention
 *   -> m = norm(main_proj(features)), whose keys every stage keeps in a window of its own
 *   drafts [blocks * blockSize]: an anchor token (chosen, not yet computed) and noise behind it, at the positions from the
 *   anchor's on -> "draft.collapsed" [drafts, hiddenSize], "draft.logits" [drafts, vocabSize] before the Markov head
 * The tokens of a block see each other both ways, and the window of what was computed before the anchor. A step of the model adds
 * context, a step without tokens drafts. Only m is remembered, never what a draft computed: nothing of it is wound back.
 */
import { Graph, pageRowsOf, type Tensor } from "../../tensor/graph.ts";
import { gatherRows } from "../../tensor/ops/gather-rows.ts";
import { joinColumns } from "../../tensor/ops/join-columns.ts";
import { linear } from "../../tensor/ops/linear.ts";
import { repeatStreams } from "../../tensor/ops/repeat-streams.ts";
import { rmsNorm } from "../../tensor/ops/rms-norm.ts";
import { sparseAttention } from "../../tensor/ops/sparse-attention.ts";
import { writeRows } from "../../tensor/ops/write-rows.ts";
import type { DrafterConfig, V41Config } from "../config.ts";
import { ropeFrequencies } from "../rope.ts";
import { roundedInput } from "../rounding.ts";
import type { Step } from "../step.ts";
import { embedding, outputLogits } from "../vocabulary.ts";
import { attentionOutput, attentionQueries, keyValues } from "./attention.ts";
import { v41Block } from "./block.ts";
import { type Carried, collapse } from "./hyper-connections.ts";

/** What the stages read of the computed positions: [tokens, hiddenSize], and where they are [tokens]. */
interface Context {
  readonly states: Tensor;
  readonly positions: Tensor;
}

/** The tokens of the blocks, and how their queries find context and block. */
interface Block {
  readonly positions: Tensor;
  readonly sequences: Tensor;
  /** Position of the last computed token, the same for all tokens of a block. */
  readonly contextEnds: Tensor;
  /** [sequences, 1]: the block of each sequence. */
  readonly pages: Tensor;
  /** [drafts, blockSize]: 0, 1, 2 ... */
  readonly rows: Tensor;
}

export function recordDrafter(
  g: Graph,
  config: V41Config,
  drafter: DrafterConfig,
  features: readonly Tensor[],
  { positions }: Step,
): void {
  const stageConfig = { ...config, numExperts: drafter.numExperts, numExpertsPerToken: drafter.numExpertsPerToken };
  const names = Array.from({ length: config.numMtpModules }, (_, stage) => `mtp.${stage}`);
  const context = { states: contextOf(g, config, features), positions };
  const draft = (name: string, columns: readonly number[] = []) =>
    g.input(`draft.${name}`, "i32", ["drafts", ...columns]);
  const block: Block = {
    positions: draft("positions"),
    sequences: draft("sequences"),
    contextEnds: draft("contextEnds"),
    pages: g.input("draft.pages", "i32", ["sequences", 1]),
    rows: draft("rows", [drafter.blockSize]),
  };
  const embedded = embedding(g, config, draft("tokenIds"));
  let carried: Carried = { streams: g.call(repeatStreams, [embedded], { count: config.hcMult }), pre: undefined };
  for (const name of names) {
    const attention = (x: Tensor) => blockAttention(g, config, drafter, `${name}.attn`, x, context, block);
    carried = v41Block(g, stageConfig, name, carried, attention, undefined);
    g.label(`${name}.streams`, carried.streams);
  }
  const collapsed = collapse(g, carried);
  g.output("draft.collapsed", collapsed);
  g.output("draft.logits", outputLogits(g, config, `${names.at(-1)}.norm.weight`, collapsed, "draft.normed"));
}

/** What the stages read of the computed positions: [tokens, hiddenSize]. */
function contextOf(g: Graph, config: V41Config, features: readonly Tensor[]): Tensor {
  const { hiddenSize, rmsNormEps: eps } = config;
  const joined = roundedInput(
    g,
    config.rounding,
    features.reduce((all, one) => g.call(joinColumns, [all, one], {})),
  );
  const projection = g.weight("mtp.0.main_proj.weight", [hiddenSize, features.length * hiddenSize]);
  const projected = g.call(linear, [joined, projection], {});
  return g.label(
    "draft.context",
    g.call(rmsNorm, [projected, g.weight("mtp.0.main_norm.weight", [hiddenSize])], { eps }),
  );
}

function blockAttention(
  g: Graph,
  config: V41Config,
  { blockSize }: DrafterConfig,
  name: string,
  x: Tensor,
  context: Context,
  block: Block,
): Tensor {
  const { slidingWindow: size, headDim, numHeads, rounding } = config;
  const frequencies = ropeFrequencies(config.rope, config.ropeHeadDim);
  // A step without new context still reads `size` rows: one more than a window in front of a new row.
  const cache = g.cache(`${name}.window`, headDim, { tokensPerRow: 1, reach: size });
  const rows = keyValues(g, config, name, roundedInput(g, rounding, context.states), context.positions, frequencies);
  const window = g.call(writeRows, [cache, rows, g.slots(cache)], {});

  const input = roundedInput(g, rounding, x);
  const { queries } = attentionQueries(g, config, name, input, block.positions, frequencies);
  const own = keyValues(g, config, name, input, block.positions, frequencies);
  const attended = g.call(
    sparseAttention,
    [
      queries,
      g.weight(`${name}.attn_sink`, [numHeads]),
      block.contextEnds,
      block.sequences,
      window,
      g.pageTable(window),
      own,
      block.pages,
      block.rows,
    ],
    { windowSize: size, ratio: 1, windowPageRows: pageRowsOf(window), entryPageRows: blockSize },
  );
  return attentionOutput(g, config, name, attended, block.positions, frequencies);
}

/**
 * The Markov head, run once for each token of a block: what the token before adds to the logits, and how confident the drafter is
 *   tokenIds [drafts], collapsed [drafts, hiddenSize] -> "bias" [drafts, vocabSize], "confidence" [drafts, 1] (a logit)
 */
export function recordMarkovHead(config: V41Config, { markovRank }: DrafterConfig): Graph {
  const g = new Graph();
  const { vocabSize, hiddenSize, numMtpModules } = config;
  const name = `mtp.${numMtpModules - 1}`;
  const tokenIds = g.input("tokenIds", "i32", ["drafts"]);
  const collapsed = g.input("collapsed", "f32", ["drafts", hiddenSize]);
  const embedded = g.call(
    gatherRows,
    [g.weight(`${name}.markov_head.embed.weight`, [vocabSize, markovRank]), tokenIds],
    {},
  );
  const head = g.weight(`${name}.markov_head.head.weight`, [vocabSize, markovRank]);
  g.output("bias", g.call(linear, [embedded, head], {}));
  const joined = g.call(joinColumns, [collapsed, embedded], {});
  const projection = g.weight(`${name}.confidence_head.proj.weight`, [1, hiddenSize + markovRank]);
  g.output("confidence", g.call(linear, [joined, projection], {}));
  return g;
}
