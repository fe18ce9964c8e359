/**
 * A session: one sequence of tokens and what the model remembers of it. Each prompt is compared with what is there; only what
 * is new is computed. A session can be forked and wound back.
 */
import { RequestError } from "../errors.ts";
import { type GenerateOptions, type GenerationEvent, type GenerationResult, generate } from "./generation.ts";
import type { Model, PromptInput } from "./model.ts";
import type { Sequence } from "./model-runner.ts";
import { withoutUndefined } from "./without-undefined.ts";

export class Session implements Disposable {
  readonly #model: Model;
  readonly #sequence: Sequence;
  #isBusy = false;

  constructor(model: Model, sequence: Sequence) {
    this.#model = model;
    this.#sequence = sequence;
  }

  /** The tokens that are computed: the last prompt and its answer, but for the answer's last token. */
  get tokenIds(): readonly number[] {
    return this.#sequence.tokenIds;
  }

  /**
   * Answers a prompt as a stream of events; the last is `{type: "end", result}`. The prompt is a whole one: for the next turn
   * of a conversation give all messages again, the common beginning costs nothing.
   * Throws a RequestError when the prompt is empty, too long or wrong, or while another answer of this session runs.
   */
  async *generate(input: PromptInput, options: GenerateOptions = {}): AsyncGenerator<GenerationEvent, void, undefined> {
    if (this.#isBusy)
      throw new RequestError("The session is answering another prompt", { code: "busy", hint: "Fork it" });
    this.#isBusy = true;
    try {
      const { defaults, runner, drafting, config, contextLength } = this.#model;
      const { signal } = options;
      const prompt = await this.#model.preparePrompt(input, { ...(signal === undefined ? {} : { signal }) });
      this.#sequence.images = prompt.images;
      const { eosTokenIds, ...sampling } = defaults;
      const chosen = { ...sampling, ...withoutUndefined(options) };
      const setting = {
        runner,
        drafting,
        tokenizer: this.#model.hasTokenizer ? this.#model.tokenizer : undefined,
        sequence: this.#sequence,
        eosTokenIds: new Set([...config.eosTokenIds, ...eosTokenIds]),
        maxTokens: Math.min(checkMaxTokens(chosen.maxTokens), contextLength - prompt.tokenIds.length),
      };
      yield* generate(setting, prompt, chosen);
    } finally {
      this.#isBusy = false;
    }
  }

  /** Answers a prompt as a whole. */
  async complete(input: PromptInput, options: GenerateOptions = {}): Promise<GenerationResult> {
    for await (const event of this.generate(input, options)) if (event.type === "end") return event.result;
    throw new RequestError("The generation ended without a result", { code: "internal" });
  }

  /** A session with the same tokens that goes its own way; memory is shared until one of the two writes. */
  fork(): Session {
    return new Session(this.#model, this.#sequence.fork());
  }

  /** Forgets the last `count` tokens. */
  rewind(count: number): void {
    this.#sequence.rewind(count);
  }

  [Symbol.dispose](): void {
    this.#sequence[Symbol.dispose]();
  }
}

function checkMaxTokens(maxTokens: number | undefined): number {
  if (maxTokens === undefined) return Number.POSITIVE_INFINITY;
  if (Number.isInteger(maxTokens) && maxTokens > 0) return maxTokens;
  throw new RequestError(`maxTokens is ${maxTokens}, not a whole number above 0`, {
    code: "request",
    where: "maxTokens",
  });
}
