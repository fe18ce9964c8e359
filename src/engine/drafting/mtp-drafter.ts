/**
 * Drafts with V4's module for multi-token prediction, which was trained for one token: for more it is chained on its own streams,
 * a pass for each, and each is a little less likely to be right. The graph is in model/multi-token-prediction.ts.
 */
import { DeviceError } from "../../errors.ts";
import type { ModelRunner } from "../model-runner.ts";
import type { DraftRequest, ModelDrafter } from "./model-drafter.ts";

export class MtpDrafter implements ModelDrafter {
  readonly kind = "mtp";
  readonly mostTokens = 4;
  readonly isChained = true;
  readonly #runner: ModelRunner;

  /** The runner must keep up its drafter (`drafts: true`). */
  constructor(runner: ModelRunner) {
    if (!runner.drafts || runner.config.architecture !== "deepseek-v4")
      throw new DeviceError("The runner has no MTP module", { code: "no-drafter" });
    this.#runner = runner;
  }

  async draft(requests: readonly DraftRequest[]): Promise<number[][]> {
    const chains = requests.map((request) => ({ ...request, last: request.anchor, tokenIds: [] as number[] }));
    for (let place = 0; ; place++) {
      const open = chains.filter(({ count, sequence }) => count > place && sequence.length > 0);
      if (open.length === 0) return chains.map(({ tokenIds }) => tokenIds);
      const from = open.map(({ sequence, last }) => ({ sequence, tokenId: last, place }));
      const logits = await this.#runner.draft(from, (program) => program.read("draft.logits"));
      const { vocabSize } = this.#runner.config;
      for (const [i, chain] of open.entries()) {
        const row = Float32Array.from(logits.subarray(i * vocabSize, (i + 1) * vocabSize));
        chain.last = chain.choose(row, chain.tokenIds);
        chain.tokenIds.push(chain.last);
      }
    }
  }
}
