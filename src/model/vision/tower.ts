/**
 * The vision tower of DeepSeek-V4.1: a transformer over the patches of one image
 *   patches [tokens, 3 * patchSize^2], positions [tokens, 2] -> [tokens, hiddenSize]
 * Every patch attends to every other; where it is, rotation alone says (half of the angles by row, half by column). Norms are
 * before each sublayer, with their own eps; products of the attention have biases, those of the MLP have none.
 */
import type { Graph, Tensor } from "../../tensor/graph.ts";
import { add } from "../../tensor/ops/add.ts";
import { axialRope } from "../../tensor/ops/axial-rope.ts";
import { fullAttention } from "../../tensor/ops/full-attention.ts";
import { gatedHalves } from "../../tensor/ops/gated-halves.ts";
import { linear } from "../../tensor/ops/linear.ts";
import { rmsNorm } from "../../tensor/ops/rms-norm.ts";
import { type VisionConfig, visionNormEps } from "./config.ts";

export function visionTower(g: Graph, config: VisionConfig, patches: Tensor, positions: Tensor): Tensor {
  const { hiddenSize, patchSize, numLayers } = config;
  let x = biasedLinear(g, "vision.patch_embed.proj", patches, [hiddenSize, 3 * patchSize ** 2]);
  g.label("vision.patch_embed", x);
  for (let l = 0; l < numLayers; l++) {
    const name = `vision.blocks.${l}`;
    const attended = selfAttention(g, config, `${name}.attn`, norm(g, config, `${name}.norm1`, x), positions);
    x = g.call(add, [x, attended], {});
    x = g.call(add, [x, gatedMlp(g, config, `${name}.mlp`, norm(g, config, `${name}.norm2`, x))], {});
    g.label(name, x);
  }
  return g.label("vision.norm", norm(g, config, "vision.norm", x));
}

/** Rotary frequencies of one axis: a quarter of the channels of a head. */
export function axialFrequencies({ hiddenSize, numHeads, ropeTheta }: VisionConfig): number[] {
  const width = hiddenSize / numHeads;
  return Array.from({ length: width / 4 }, (_, i) => ropeTheta ** ((-2 * i) / (width / 2)));
}

function selfAttention(g: Graph, config: VisionConfig, name: string, x: Tensor, positions: Tensor): Tensor {
  const { hiddenSize, numHeads } = config;
  const headDim = hiddenSize / numHeads;
  // Rows of wqkv: all heads of the queries, then of the keys, then of the values.
  const qkv = biasedLinear(g, `${name}.wqkv`, x, [3 * hiddenSize, hiddenSize]);
  const rotated = g.call(axialRope, [g.reshape(qkv, ["tokens", 3 * numHeads, headDim]), positions], {
    frequencies: axialFrequencies(config),
    rotatedHeads: 2 * numHeads,
  });
  const attended = g.call(fullAttention, [g.reshape(rotated, ["tokens", 3, numHeads, headDim])], {});
  return biasedLinear(g, `${name}.wo`, g.reshape(attended, ["tokens", hiddenSize]), [hiddenSize, hiddenSize]);
}

function gatedMlp(g: Graph, config: VisionConfig, name: string, x: Tensor): Tensor {
  const { hiddenSize, intermediateSize } = config;
  const both = wholeLinear(g, `${name}.w1.weight`, x, [2 * intermediateSize, hiddenSize]);
  const gated = g.call(gatedHalves, [both], {});
  return wholeLinear(g, `${name}.w2.weight`, gated, [hiddenSize, intermediateSize]);
}

function norm(g: Graph, { hiddenSize }: VisionConfig, name: string, x: Tensor): Tensor {
  return g.call(rmsNorm, [x, g.weight(`${name}.weight`, [hiddenSize])], { eps: visionNormEps });
}

/** y = W x + b, of the weights `name.weight` and `name.bias`. */
export function biasedLinear(g: Graph, name: string, x: Tensor, [out, columns]: readonly [number, number]): Tensor {
  const product = wholeLinear(g, `${name}.weight`, x, [out, columns]);
  return g.call(add, [product, g.weight(`${name}.bias`, [out])], {});
}

/**
 * An image is computed whole, in one step and alone: no order of sums is seen as chunks or batches, as those of text are. What is kept
 * of it is known by its pixels (engine/vision/), and a step of text that takes some of its rows finds them finished.
 */
function wholeLinear(g: Graph, weight: string, x: Tensor, shape: readonly [number, number]): Tensor {
  return g.call(linear, [x, g.weight(weight, shape)], { inAnyOrder: true });
}
