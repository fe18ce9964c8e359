/**
 * The sizes and inputs that the drafting part of a model's graph wants beside those of every step. A step of the model completes
 * pairs (V4) or adds context (V4.1), and drafts nothing; a step without tokens drafts.
 */
import type { DrafterConfig } from "../../model/config.ts";
import { layoutName, poolRow } from "../../tensor/paging.ts";
import type { LayoutPages } from "../cache/kv-cache.ts";
import type { StepPart, StepTables } from "../cache/step-tables.ts";

/** What a sequence drafts from in a step without tokens. */
export interface DraftToken {
  /** Chosen (or drafted), not yet computed. */
  readonly tokenId: number;
  /** Its place behind what is computed: 0 for the anchor, 1 for the first drafted token ... */
  readonly place: number;
}

/** A part of a step of the model, or with a draft one of a step that drafts. */
export interface DraftingPart extends StepPart {
  readonly draft?: DraftToken;
}

/** V4: pairs of a position and the token after it. `base` are the tables of the same parts. */
export function pairTables(
  parts: readonly DraftingPart[],
  layouts: readonly LayoutPages[],
  base: StepTables,
): StepTables {
  const pairs = parts.flatMap((part, s) => pairsOf(part).map((pair) => ({ ...pair, s })));
  const drafting = parts.flatMap(({ draft }, s) => (draft === undefined ? [] : [s]));
  const window = layouts.find(({ layout }) => layout.isLate)!;
  const streams = layouts.find(({ layout }) => layout.reach === 1 && layout.tokensPerRow === 1)!;
  const rowIn = ({ name, pageRows }: LayoutPages, s: number, row: number) =>
    poolRow(base.inputs[`pages.${name}`]!, base.sizes[`pages.${name}`]!, pageRows, s, row);
  return {
    sizes: { pairs: pairs.length, drafts: drafting.length },
    inputs: {
      "pair.tokenIds": Int32Array.from(pairs, ({ tokenId }) => tokenId),
      "pair.positions": Int32Array.from(pairs, ({ position }) => position),
      "pair.sequences": Int32Array.from(pairs, ({ s }) => s),
      "pair.streamRows": Int32Array.from(pairs, ({ position, s }) => rowIn(streams, s, position)),
      [`slots.${layoutName(window.layout)}`]: Int32Array.from(pairs, ({ position, s }) => rowIn(window, s, position)),
      "draft.pairs": Int32Array.from(drafting, (_, i) => i),
      "draft.streamSlots": Int32Array.from(drafting, (s, i) => rowIn(streams, s, pairs[i]!.position + 1)),
    },
  };
}

/** Tokens complete the pairs of the positions before them; the first of a sequence none. */
function pairsOf({ cache, tokenIds, draft }: DraftingPart): { tokenId: number; position: number }[] {
  if (draft !== undefined) return [{ tokenId: draft.tokenId, position: cache.length + draft.place - 1 }];
  return tokenIds
    .map((tokenId, i) => ({ tokenId, position: cache.length + i - 1 }))
    .filter(({ position }) => position >= 0);
}

/** V4.1: a block for every part that drafts, its anchor first, then noise. */
export function blockTables(
  parts: readonly DraftingPart[],
  { blockSize, noiseTokenId }: Pick<DrafterConfig, "blockSize" | "noiseTokenId">,
): StepTables {
  const drafting = parts.flatMap(({ cache, draft }, s) =>
    draft === undefined ? [] : [{ s, draft, at: cache.length }],
  );
  const each = (value: (block: (typeof drafting)[number], slot: number) => number) =>
    Int32Array.from({ length: drafting.length * blockSize }, (_, i) =>
      value(drafting[Math.floor(i / blockSize)]!, i % blockSize),
    );
  return {
    sizes: { drafts: drafting.length * blockSize },
    inputs: {
      "draft.tokenIds": each(({ draft }, slot) => (slot === 0 ? draft.tokenId : noiseTokenId)),
      "draft.positions": each(({ at }, slot) => at + slot),
      "draft.sequences": each(({ s }) => s),
      "draft.contextEnds": each(({ at }) => at - 1),
      "draft.pages": Int32Array.from(parts, (_, s) => s),
      "draft.rows": Int32Array.from({ length: drafting.length * blockSize ** 2 }, (_, i) => i % blockSize),
    },
  };
}
