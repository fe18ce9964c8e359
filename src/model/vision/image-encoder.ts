/**
 * From the patches of one image to the rows that stand for it in the text: tower, aligner, and the rows that mark start, line
 * ends and end. Inputs as in image-inputs.ts, output "rows" [span, textHiddenSize].
 */
import { Graph } from "../../tensor/graph.ts";
import { imageSpan } from "../../tensor/ops/image-span.ts";
import { type Parameter, parametersOf } from "../parameters.ts";
import { aligner } from "./aligner.ts";
import type { VisionConfig } from "./config.ts";
import { visionTower } from "./tower.ts";

export function recordImageEncoder(config: VisionConfig): Graph {
  const { patchSize, downsampleRatio, textHiddenSize: width } = config;
  const g = new Graph();
  const patches = g.input("patches", "f32", ["tokens", 3 * patchSize ** 2]);
  const tower = visionTower(g, config, patches, g.input("positions", "i32", ["tokens", 2]));
  const members = g.input("members", "i32", ["cells", downsampleRatio ** 2]);
  const cells = g.label("aligner", aligner(g, config, tower, members));
  const marks = ["start", "newline", "end"].map((mark) => g.weight(`image_${mark}`, [width]));
  g.output("rows", g.call(imageSpan, [cells, ...marks, g.input("layout", "i32", ["span"])], {}));
  return g;
}

/** What a checkpoint with a vision part must hold beside the text model. */
export function visionParameters(config: VisionConfig): Parameter[] {
  return parametersOf(recordImageEncoder(config));
}
