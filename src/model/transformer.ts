/**
 * The whole pass of a model of the DeepSeek-V4 family: token ids to logits
 *   tokenIds [tokens] -> streams [tokens, hcMult, hiddenSize] -> logits [outputs, vocabSize]
 * `outputRows` names the tokens of the step whose logits are wanted; the head is not computed for the others. This is the one
 * place where V4 and V4.1 part: what they share is in this folder, what only V4.1 has in v41/.
 */
import { finishSteps } from "../finish-steps.ts";
import { Graph, type Tensor } from "../tensor/graph.ts";
import { gatherRows } from "../tensor/ops/gather-rows.ts";
import { repeatStreams } from "../tensor/ops/repeat-streams.ts";
import { block } from "./block.ts";
import type { ModelConfig, V4Config } from "./config.ts";
import { collapseHead } from "./hyper-connections.ts";
import { withImageRows } from "./image-rows.ts";
import { recordMultiTokenPrediction } from "./multi-token-prediction.ts";
import { type Step, stepInputs } from "./step.ts";
import { recordV41Layers } from "./v41/layers.ts";
import { embedding, outputLogits } from "./vocabulary.ts";

export interface TransformerOptions {
  /** Record what the model drafts with as well: its MTP module, or DSpark. The config must name one. */
  readonly drafts?: boolean;
  /** Tokens may be parts of images: their rows are inputs (image-rows.ts). */
  readonly readsImages?: boolean;
}

/** Records the graph: inputs as in step.ts and `outputRows` [outputs], output "logits" [outputs, vocabSize]. */
export function recordTransformer(config: ModelConfig, options: TransformerOptions = {}): Graph {
  return finishSteps(recordInSteps(config, options));
}

/** The same in a step for each layer: the first record of sixty, by code that is not compiled yet, takes 20 ms and more. */
export function* recordInSteps(config: ModelConfig, options: TransformerOptions = {}): Generator<undefined, Graph> {
  const g = new Graph();
  const step = stepInputs(g);
  const words = g.label("embeddings", embedding(g, config, step.tokenIds));
  const embedded = options.readsImages ? withImageRows(g, config.hiddenSize, words) : words;
  const outputRows = g.input("outputRows", "i32", ["outputs"]);
  const drafts = options.drafts ?? false;
  const collapsed =
    config.architecture === "deepseek-v4.1"
      ? yield* recordV41Layers(g, config, embedded, step, outputRows, drafts)
      : yield* recordV4Layers(g, config, embedded, step, outputRows, drafts);
  g.label("head.collapsed", collapsed);
  g.output("logits", outputLogits(g, config, "norm.weight", collapsed, "head.normed"));
  return g;
}

/** embedded [tokens, hiddenSize] -> [outputs, hiddenSize]. */
function* recordV4Layers(
  g: Graph,
  config: V4Config,
  embedded: Tensor,
  step: Step,
  outputRows: Tensor,
  drafts: boolean,
): Generator<undefined, Tensor> {
  let streams = g.call(repeatStreams, [embedded], { count: config.hcMult });
  for (const [l, ratio] of config.compressRatios.entries()) {
    const layer = { name: `layers.${l}`, ratio, hashRouted: config.hashRouted[l]! };
    streams = g.label(`layers.${l}.streams`, block(g, config, layer, streams, step));
    yield;
  }
  if (drafts) recordMultiTokenPrediction(g, config, streams);
  return collapseHead(g, config, "hc_head", g.call(gatherRows, [streams, outputRows], {}));
}
