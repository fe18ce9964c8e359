/**
 * Greedy decoding with DSpark's drafts: each step of the model verifies the anchor and a block behind it, and what it would have
 * chosen itself is kept. The tokens are those of plain decoding, whatever the drafter says.
 */
import type { V41Config } from "../../model/config.ts";
import { featureOutput } from "../../model/v41/layers.ts";
import type { ModelRunner, Sequence } from "../model-runner.ts";
import { type DraftContext, type DsparkDrafter, type Features, rowsOf } from "./dspark-drafter.ts";

export interface Speculation {
  readonly tokenIds: readonly number[];
  readonly drafted: number;
  readonly accepted: number;
}

/** The runner must keep its features (`transformer: { keepStreams: true }`). Stops after `count` tokens. */
export async function decodeWithDrafts(
  runner: ModelRunner,
  drafter: DsparkDrafter,
  prompt: readonly number[],
  count: number,
): Promise<Speculation> {
  using sequence = runner.createSequence();
  using context = drafter.createContext();
  const [logits] = await appendAll(runner, sequence, context, prompt);
  const tokenIds = [greatest(logits!)];
  let [drafted, accepted] = [0, 0];
  while (tokenIds.length < count) {
    const anchor = tokenIds.at(-1)!;
    const [draft] = await drafter.draft([{ context, anchor }]);
    const block = [anchor, ...draft!.tokenIds];
    const [rows] = await runner.step([{ sequence, tokenIds: block, outputs: block.length }]);
    const own = rows!.map(greatest);
    let right = 0;
    while (right < draft!.tokenIds.length && draft!.tokenIds[right] === own[right]) right++;
    // The anchor and the right tokens behind it stay; the model's own choice after them is the next anchor.
    context.take(right + 1, featuresOf(runner, block.length, 0, right + 1));
    sequence.rewind(block.length - 1 - right);
    tokenIds.push(...own.slice(0, right + 1));
    drafted += draft!.tokenIds.length;
    accepted += right;
  }
  return { tokenIds: tokenIds.slice(0, count), drafted, accepted };
}

/** Computes a prompt in steps, and hands its features to the context. Returns the logits behind it. */
async function appendAll(
  runner: ModelRunner,
  sequence: Sequence,
  context: DraftContext,
  prompt: readonly number[],
): Promise<Float32Array[]> {
  let logits: Float32Array[] = [];
  for (let start = 0; start < prompt.length; start += runner.stepTokens) {
    const part = prompt.slice(start, start + runner.stepTokens);
    [logits = []] = await runner.step([{ sequence, tokenIds: part, outputs: 1 }]);
    context.take(part.length, featuresOf(runner, part.length, 0, part.length));
  }
  return logits;
}

/** Features of rows `from` to `end` of the runner's last step, which had `count` tokens. */
function featuresOf(runner: ModelRunner, count: number, from: number, end: number): Features {
  const { drafter } = runner.config as V41Config; // a runner without features has no such outputs to read
  return new Map(
    drafter!.featureLayers.map((layer) => [
      layer,
      rowsOf(Float32Array.from(runner.program.read(featureOutput(layer))), count, from, end),
    ]),
  );
}

function greatest(logits: Float32Array): number {
  return logits.indexOf(Math.max(...logits));
}
