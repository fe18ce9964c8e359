/**
 * DSpark on a device: proposes a block of tokens for one or several sequences of a V4.1 model at once. It follows a sequence by the
 * features of the positions that the model has computed and that are there to stay; drafts leave no trace in it.
 *   const drafter = new DsparkDrafter(config, device);  const context = drafter.createContext();
 *   context: after each step of the model, take(features of the accepted positions); then draft([{ context, anchor }])
 */
import type { Device, Program } from "../../device/device.ts";
import { DeviceError } from "../../errors.ts";
import type { DrafterConfig, V41Config } from "../../model/config.ts";
import { recordDrafter, recordMarkovHead } from "../../model/v41/drafter.ts";
import { featureOutput } from "../../model/v41/layers.ts";
import { cacheLayouts } from "../../tensor/graph.ts";
import { KvCache, type SequenceCache } from "../cache/kv-cache.ts";
import { stepLimits, stepTables } from "../cache/step-tables.ts";

/** For each feature layer, by its number: [positions, hiddenSize]. */
export type Features = ReadonlyMap<number, Float32Array>;

export interface DraftRequest {
  readonly context: DraftContext;
  /** The token behind all computed ones: chosen, not yet computed. */
  readonly anchor: number;
}

export interface Draft {
  /** Tokens for the positions behind the anchor. */
  readonly tokenIds: readonly number[];
  /** What each was chosen from: [vocabSize]. */
  readonly logits: readonly Float32Array[];
  /** A logit for each token: how sure the drafter is that it stands, given those before it. */
  readonly confidence: readonly number[];
}

/** Positions that one step may add; more are added in several. */
const stepTokens = 512;

export class DsparkDrafter {
  readonly #config: V41Config;
  readonly #drafter: DrafterConfig;
  readonly #stages: Program;
  readonly #markov: Program;
  readonly #cache: KvCache;
  #room: number;

  /** The device must hold the weights of the model and of its drafter. Throws a DeviceError for a model that has none. */
  constructor(config: V41Config, device: Device, options: { sequences?: number; keep?: readonly string[] } = {}) {
    if (config.drafter === undefined) throw new DeviceError("The model has no drafter", { code: "no-drafter" });
    this.#config = config;
    this.#drafter = config.drafter;
    this.#room = options.sequences ?? 1;
    const keep = options.keep ?? [];
    this.#stages = device.compile(recordDrafter(config, this.#drafter), { limits: { tokens: 0, drafts: 0 }, keep });
    this.#markov = device.compile(recordMarkovHead(config, this.#drafter), { limits: { drafts: this.#room } });
    this.#cache = new KvCache(this.#stages, 0);
    this.#reserve();
  }

  /** Tokens of a draft. */
  get blockSize(): number {
    return this.#drafter.blockSize;
  }

  /** The stages' program, for its kept labels. */
  get program(): Program {
    return this.#stages;
  }

  createContext(): DraftContext {
    return new DraftContext(this.#cache.createSequence());
  }

  /**
   * A draft for each request; first, what their contexts have taken is added. `choose` picks a token from its logits (default: the
   * most probable). A context without any position gives no draft.
   */
  async draft(requests: readonly DraftRequest[], choose = mostProbable): Promise<Draft[]> {
    for (const { context } of requests) await this.#catchUp(context);
    const ready = requests.filter(({ context }) => context.length > 0);
    const drafts = new Map<DraftRequest, Draft>();
    if (ready.length > 0) {
      this.#makeRoomFor(ready.length);
      const { logits, collapsed } = await this.#runStages(ready);
      const chained = await this.#chain(ready, logits, collapsed, choose);
      ready.forEach((request, i) => {
        drafts.set(request, chained[i]!);
      });
    }
    return requests.map((request) => drafts.get(request) ?? { tokenIds: [], logits: [], confidence: [] });
  }

  /** Adds the positions that a context has taken. */
  async #catchUp(context: DraftContext): Promise<void> {
    for (let part = context.next(stepTokens); part !== undefined; part = context.next(stepTokens)) {
      const { cache } = context;
      const tokenIds = new Array<number>(part.positions).fill(0); // only their number counts
      this.#cache.prepare(cache, part.positions);
      const tables = stepTables([{ cache, tokenIds, outputs: 0 }], this.#cache.layouts, stepTokens);
      const none = this.#draftInputs([]);
      const sizes = { ...tables.sizes, drafts: 0 };
      await this.#stages.run({ sizes, inputs: { ...tables.inputs, ...none, ...featureInputs(part.features) } });
      cache.advance(part.positions);
    }
  }

  async #runStages(requests: readonly DraftRequest[]): Promise<{ logits: Float32Array; collapsed: Float32Array }> {
    const parts = requests.map(({ context }) => ({ cache: context.cache, tokenIds: [], outputs: 0 }));
    const tables = stepTables(parts, this.#cache.layouts, stepTokens);
    const nothing = new Map(this.#drafter.featureLayers.map((layer) => [layer, new Float32Array(0)]));
    const sizes = { ...tables.sizes, drafts: requests.length * this.blockSize };
    const inputs = { ...tables.inputs, ...this.#draftInputs(requests), ...featureInputs(nothing) };
    await this.#stages.run({ sizes, inputs });
    const read = (name: string) => Float32Array.from(this.#stages.read(name));
    return { logits: read("logits"), collapsed: read("collapsed") };
  }

  #draftInputs(requests: readonly DraftRequest[]): Record<string, Int32Array> {
    const { blockSize, noiseTokenId } = this.#drafter;
    const each = (value: (request: DraftRequest, s: number, slot: number) => number) =>
      Int32Array.from({ length: requests.length * blockSize }, (_, i) =>
        value(requests[Math.floor(i / blockSize)]!, Math.floor(i / blockSize), i % blockSize),
      );
    return {
      "draft.tokenIds": each(({ anchor }, _, slot) => (slot === 0 ? anchor : noiseTokenId)),
      "draft.positions": each(({ context }, _, slot) => context.length + slot),
      "draft.sequences": each((_, s) => s),
      "draft.contextEnds": each(({ context }) => context.length - 1),
      // A step that adds context has one sequence, and no block.
      "draft.pages": Int32Array.from({ length: Math.max(1, requests.length) }, (_, s) => s),
      "draft.rows": Int32Array.from({ length: requests.length * blockSize ** 2 }, (_, i) => i % blockSize),
    };
  }

  /** Token by token: each adds to the logits of the next what the Markov head says of it. */
  async #chain(
    requests: readonly DraftRequest[],
    logits: Float32Array,
    collapsed: Float32Array,
    choose: (logits: Float32Array) => number,
  ): Promise<Draft[]> {
    const { vocabSize, hiddenSize } = this.#config;
    const chains = requests.map(({ anchor }) => ({
      last: anchor,
      tokenIds: [] as number[],
      logits: [] as Float32Array[],
      confidence: [] as number[],
    }));
    for (let slot = 0; slot < this.blockSize; slot++) {
      const rowOf = (s: number) => s * this.blockSize + slot;
      const states = new Float32Array(chains.length * hiddenSize);
      for (let s = 0; s < chains.length; s++)
        states.set(collapsed.subarray(rowOf(s) * hiddenSize, (rowOf(s) + 1) * hiddenSize), s * hiddenSize);
      const tokenIds = Int32Array.from(chains, ({ last }) => last);
      await this.#markov.run({ sizes: { drafts: chains.length }, inputs: { tokenIds, collapsed: states } });
      const bias = this.#markov.read("bias");
      const confidence = this.#markov.read("confidence");
      for (const [s, chain] of chains.entries()) {
        const row = logits.slice(rowOf(s) * vocabSize, (rowOf(s) + 1) * vocabSize);
        for (let i = 0; i < vocabSize; i++) row[i] = row[i]! + bias[s * vocabSize + i]!;
        chain.last = choose(row);
        chain.tokenIds.push(chain.last);
        chain.logits.push(row);
        chain.confidence.push(confidence[s]!);
      }
    }
    return chains;
  }

  #makeRoomFor(sequences: number): void {
    if (sequences <= this.#room) return;
    this.#room = sequences;
    this.#markov.reserve({ drafts: sequences });
    this.#reserve();
  }

  #reserve(): void {
    const layouts = cacheLayouts(this.#stages.graph);
    const limits = stepLimits(layouts, { tokens: stepTokens, sequences: this.#room, context: 0 });
    this.#stages.reserve({ ...limits, drafts: this.#room * this.blockSize });
  }
}

/** What a drafter knows of one sequence: the keys of its computed positions. */
export class DraftContext implements Disposable {
  readonly cache: SequenceCache;
  /** Taken, not yet added. */
  #features: { positions: number; features: Features }[] = [];

  constructor(cache: SequenceCache) {
    this.cache = cache;
  }

  /** Positions that were taken: the anchor of the next draft stands there. */
  get length(): number {
    return this.cache.length + this.#features.reduce((sum, { positions }) => sum + positions, 0);
  }

  /** Further positions of the sequence, that the model has computed and that stay. */
  take(positions: number, features: Features): void {
    if (positions > 0) this.#features.push({ positions, features });
  }

  /** At most `most` of the positions that were taken, and forgets them. */
  next(most: number): { positions: number; features: Features } | undefined {
    const first = this.#features.shift();
    if (first === undefined || first.positions <= most) return first;
    const cut = (from: number, end: number) =>
      new Map([...first.features].map(([layer, rows]) => [layer, rowsOf(rows, first.positions, from, end)]));
    this.#features.unshift({ positions: first.positions - most, features: cut(most, first.positions) });
    return { positions: most, features: cut(0, most) };
  }

  [Symbol.dispose](): void {
    this.cache.clear();
    this.#features = [];
  }
}

/** Rows `from` to `end` of `count` rows. */
export function rowsOf(rows: Float32Array, count: number, from: number, end: number): Float32Array {
  const width = rows.length / count;
  return rows.slice(from * width, end * width);
}

function featureInputs(features: Features): Record<string, Float32Array> {
  return Object.fromEntries([...features].map(([layer, rows]) => [featureOutput(layer), rows]));
}

function mostProbable(logits: Float32Array): number {
  return logits.reduce((best, value, id) => (value > logits[best]! ? id : best), 0);
}
