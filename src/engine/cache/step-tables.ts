/**
 * The integer inputs of a step: positions, page tables, where new rows go, which groups close. Everything that a program
 * needs to know about a ragged batch, made from the sequences' pages.
 */

import { type CacheLayout, poolRow } from "../../tensor/paging.ts";
import type { Sizes } from "../../tensor/shape.ts";
import type { LayoutPages, SequenceCache } from "./kv-cache.ts";

/** Tokens of one sequence in a step; `outputs` counts the last tokens whose logits are wanted. */
export interface StepPart {
  readonly cache: SequenceCache;
  readonly tokenIds: readonly number[];
  readonly outputs: number;
  /** Rows behind those of its tokens that the step touches as well: those of a draft. */
  readonly ahead?: number;
}

export interface StepTables {
  readonly sizes: Record<string, number>;
  readonly inputs: Record<string, Int32Array>;
}

/** `maxTokens` is the most a step may hold: the tables of bounded caches always have the width that needs. */
export function stepTables(parts: readonly StepPart[], layouts: readonly LayoutPages[], maxTokens: number): StepTables {
  const tokenIds = parts.flatMap((part) => part.tokenIds);
  const positions = parts.flatMap(({ cache, tokenIds: ids }) => ids.map((_, i) => cache.length + i));
  const sequences = parts.flatMap(({ tokenIds: ids }, s) => ids.map(() => s));
  const outputRows = rowsOfOutputs(parts);
  const sizes: Record<string, number> = {
    tokens: tokenIds.length,
    sequences: parts.length,
    outputs: outputRows.length,
  };
  const inputs: Record<string, Int32Array> = {
    tokenIds: Int32Array.from(tokenIds),
    positions: Int32Array.from(positions),
    sequences: Int32Array.from(sequences),
    outputRows: Int32Array.from(outputRows),
  };
  for (const layout of layouts) addLayout(parts, layout, maxTokens, sizes, inputs);
  return { sizes, inputs };
}

function rowsOfOutputs(parts: readonly StepPart[]): number[] {
  let end = 0;
  return parts.flatMap(({ tokenIds, outputs }) => {
    end += tokenIds.length;
    return Array.from({ length: outputs }, (_, i) => end - outputs + i);
  });
}

function addLayout(
  parts: readonly StepPart[],
  { name, layout, pageRows }: LayoutPages,
  maxTokens: number,
  sizes: Record<string, number>,
  inputs: Record<string, Int32Array>,
): void {
  const width = tableWidth(parts, layout, pageRows, maxTokens);
  const pages = new Int32Array(parts.length * width);
  parts.forEach(({ cache, tokenIds, ahead = 0 }, s) => {
    // A page that holds only rows before the reach of this step may still be there (for winding back): it is left out, for
    // in a table that goes round its place belongs to a later page.
    const oldest = Math.max(0, cache.length - layout.reach);
    const end = Math.floor((cache.length + tokenIds.length + ahead) / layout.tokensPerRow);
    for (const [index, page] of cache.pagesOf(name)) {
      if ((index + 1) * pageRows > oldest && index * pageRows < end) pages[s * width + (index % width)] = page;
    }
  });
  sizes[`pages.${name}`] = width;
  inputs[`pages.${name}`] = pages;
  if (layout.isLate) return; // which rows are new, the pairs say (drafting/draft-tables.ts)
  const slots: number[] = [];
  const closed = { sequences: [] as number[], entries: [] as number[], positions: [] as number[] };
  parts.forEach(({ cache, tokenIds }, s) => {
    const first = Math.floor(cache.length / layout.tokensPerRow);
    const end = Math.floor((cache.length + tokenIds.length) / layout.tokensPerRow);
    for (let row = first; row < end; row++) {
      slots.push(poolRow(pages, width, pageRows, s, row));
      closed.sequences.push(s);
      closed.entries.push(row);
      closed.positions.push(row * layout.tokensPerRow);
    }
  });
  inputs[`slots.${name}`] = Int32Array.from(slots);
  const ratio = layout.tokensPerRow;
  if (layout.reach === Number.POSITIVE_INFINITY) sizes[`visible.${ratio}`] = visibleEntries(parts, ratio);
  if (ratio === 1) return; // a token is its own group
  sizes[`closed.${ratio}`] = slots.length;
  for (const [role, values] of Object.entries(closed)) inputs[`closed.${ratio}.${role}`] = Int32Array.from(values);
}

/** Bounded caches: all pages that a step can touch at distinct places. Growing ones: all pages, in steps of powers of two. */
function tableWidth(parts: readonly StepPart[], layout: CacheLayout, pageRows: number, maxTokens: number): number {
  if (layout.reach !== Number.POSITIVE_INFINITY) return Math.ceil((layout.reach + maxTokens) / pageRows) + 1;
  const longest = Math.max(0, ...parts.map(({ cache, tokenIds }) => cache.length + tokenIds.length));
  const pages = Math.ceil(longest / layout.tokensPerRow / pageRows);
  return 2 ** Math.ceil(Math.log2(Math.max(1, pages)));
}

/** Columns of the table of indexer scores. Rounded up, so that decoding does not change the sizes every few tokens. */
function visibleEntries(parts: readonly StepPart[], ratio: number): number {
  const most = Math.max(0, ...parts.map(({ cache, tokenIds }) => Math.floor((cache.length + tokenIds.length) / ratio)));
  return Math.ceil(most / visibleStep) * visibleStep;
}

export const visibleStep = 64;

/**
 * The limits that hold for steps of at most `tokens` tokens of at most `sequences` sequences up to `context` tokens long, with the
 * logits of at most `outputs` tokens.
 */
export function stepLimits(
  layouts: readonly CacheLayout[],
  { tokens, sequences, outputs, context }: { tokens: number; sequences: number; outputs: number; context: number },
): Sizes {
  const limits: Record<string, number> = { tokens, outputs, sequences };
  for (const { tokensPerRow: ratio, reach } of layouts) {
    if (ratio > 1) limits[`closed.${ratio}`] = Math.floor(tokens / ratio) + sequences;
    if (reach !== Number.POSITIVE_INFINITY) continue;
    limits[`visible.${ratio}`] = Math.ceil(Math.floor(context / ratio) / visibleStep) * visibleStep;
  }
  return limits;
}
