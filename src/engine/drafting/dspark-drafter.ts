/**
 * Drafts with DSpark, V4.1's drafter: a block of tokens in one pass (model/v41/drafter.ts), whose logits a small Markov head then
 * corrects token by token.
 */
import type { Device, Program } from "../../device/device.ts";
import { DeviceError } from "../../errors.ts";
import type { V41Config } from "../../model/config.ts";
import { recordMarkovHead } from "../../model/v41/drafter.ts";
import type { ModelRunner } from "../model-runner.ts";
import type { DraftRequest, ModelDrafter } from "./model-drafter.ts";

interface Block {
  /** Tokens for the positions behind the anchor. */
  readonly tokenIds: number[];
  /** What each was chosen from: [vocabSize]. */
  readonly logits: Float32Array[];
  /** A logit for each token: how sure the drafter is that it stands, given those before it. */
  readonly confidence: number[];
}

export class DsparkDrafter implements ModelDrafter {
  readonly kind = "dspark";
  readonly mostTokens: number;
  readonly isChained = false;
  readonly #runner: ModelRunner;
  readonly #config: V41Config;
  readonly #markov: Program;
  #room = 1;

  /** The runner must keep up its drafter (`drafts: true`); the device holds the weights of both. */
  constructor(runner: ModelRunner, device: Device) {
    const { config } = runner;
    if (!runner.drafts || config.architecture !== "deepseek-v4.1")
      throw new DeviceError("The runner has no DSpark", { code: "no-drafter" });
    this.#runner = runner;
    this.#config = config;
    this.mostTokens = config.drafter!.blockSize; // a runner that drafts has one
    this.#markov = device.compile(recordMarkovHead(config, config.drafter!), { limits: { drafts: this.#room } });
  }

  async draft(requests: readonly DraftRequest[]): Promise<number[][]> {
    return (await this.blocks(requests)).map(({ tokenIds }) => tokenIds);
  }

  /** As `draft`, with what the tokens were chosen from. */
  async blocks(requests: readonly DraftRequest[]): Promise<Block[]> {
    const chains = requests.map((request) => {
      return { ...request, last: request.anchor, tokenIds: [], logits: [], confidence: [] } as Chain;
    });
    const open = chains.filter(({ sequence, count }) => sequence.length > 0 && count > 0);
    if (open.length === 0) return chains;
    const from = open.map(({ sequence, anchor }) => ({ sequence, tokenId: anchor, place: 0 }));
    const read = (program: Program) =>
      [program.read("draft.logits"), program.read("draft.collapsed")].map((values) => Float32Array.from(values));
    const [logits, collapsed] = (await this.#runner.draft(from, read)) as [Float32Array, Float32Array];
    const slots = Math.max(...open.map(({ count }) => count));
    // One draft at a time: between a pass of the head and the reading of what it gave comes no other.
    await this.#runner.betweenSteps(async () => {
      for (let slot = 0; slot < slots; slot++) await this.#correct(open, slot, logits, collapsed);
    });
    return chains;
  }

  /** The token of one slot in every block: the Markov head adds what the token before says of it. */
  async #correct(chains: readonly Chain[], slot: number, logits: Float32Array, collapsed: Float32Array): Promise<void> {
    const { vocabSize, hiddenSize } = this.#config;
    const rowOf = (rows: Float32Array, width: number, s: number) => {
      const row = s * this.mostTokens + slot;
      return rows.subarray(row * width, (row + 1) * width);
    };
    const states = new Float32Array(chains.length * hiddenSize);
    for (let s = 0; s < chains.length; s++) states.set(rowOf(collapsed, hiddenSize, s), s * hiddenSize);
    this.#makeRoomFor(chains.length);
    const tokenIds = Int32Array.from(chains, ({ last }) => last);
    await this.#markov.run({ sizes: { drafts: chains.length }, inputs: { tokenIds, collapsed: states } });
    const bias = this.#markov.read("bias");
    const confidence = this.#markov.read("confidence");
    for (const [s, chain] of chains.entries()) {
      if (slot >= chain.count) continue;
      const row = rowOf(logits, vocabSize, s).slice();
      for (let i = 0; i < vocabSize; i++) row[i] = row[i]! + bias[s * vocabSize + i]!;
      chain.last = chain.choose(row, chain.tokenIds);
      chain.tokenIds.push(chain.last);
      chain.logits.push(row);
      chain.confidence.push(confidence[s]!);
    }
  }

  #makeRoomFor(sequences: number): void {
    if (sequences <= this.#room) return;
    this.#room = sequences;
    this.#markov.reserve({ drafts: sequences });
  }
}

interface Chain extends DraftRequest, Block {
  last: number;
}
