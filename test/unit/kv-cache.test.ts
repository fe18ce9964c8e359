/** The cache's bookkeeping against an oracle: whatever is appended, forked and wound back, every row read is the right one. */
import assert from "node:assert/strict";
import { describe, test } from "node:test";
import fc from "fast-check";
import type { Program } from "../../src/device/device.ts";
import { KvCache, type SequenceCache } from "../../src/engine/cache/kv-cache.ts";
import { PagePool } from "../../src/engine/cache/page-pool.ts";
import { stepTables } from "../../src/engine/cache/step-tables.ts";
import { DeviceError } from "../../src/errors.ts";
import { Graph } from "../../src/tensor/graph.ts";
import { poolRow } from "../../src/tensor/paging.ts";

const maxTokens = 40;

/** A program whose caches are arrays of labels: which token of which history wrote the row. */
class LabelProgram {
  readonly graph = new Graph();
  readonly rows = new Map<string, string[]>();
  constructor() {
    this.graph.cache("window", 1, { tokensPerRow: 1, reach: 50 });
    this.graph.cache("tail", 1, { tokensPerRow: 1, reach: 7 });
    this.graph.cache("entries", 1, { tokensPerRow: 4, reach: Number.POSITIVE_INFINITY });
  }
  resizeCaches(layout: string, rows: number): void {
    const old = this.rows.get(layout) ?? [];
    this.rows.set(layout, [...old, ...new Array<string>(rows - old.length).fill("never written")]);
  }
  copyCacheRows(layout: string, from: number, to: number, count: number): void {
    this.rows.get(layout)!.copyWithin(to, from, from + count);
  }
}

/** A sequence with its history: the label of each token. */
interface Tracked {
  readonly cache: SequenceCache;
  readonly history: string[];
}

function setUp() {
  const program = new LabelProgram();
  const cache = new KvCache(program as unknown as Program, 10); // only the methods above are called
  return { program, cache };
}

/** Writes like a step: labels into the slots, then reads back every row that a step may read. */
function append(
  { program, cache }: ReturnType<typeof setUp>,
  sequences: Tracked[],
  counts: number[],
  tag: string,
): void {
  const parts = sequences.map(({ cache: part }, s) => ({
    cache: part,
    tokenIds: new Array<number>(counts[s]!).fill(0),
    outputs: 0,
  }));
  for (const { cache: part, tokenIds } of parts) cache.prepare(part, tokenIds.length);
  const { sizes, inputs } = stepTables(parts, cache.layouts, maxTokens);
  const histories = sequences.map(({ history }, s) => {
    const before = history.length;
    for (let i = 0; i < counts[s]!; i++) history.push(`${tag}:${s}:${before + i}`);
    return history;
  });
  for (const { name, layout, pageRows } of cache.layouts) {
    const written = inputs[`slots.${name}`]!;
    const rows = program.rows.get(name) ?? [];
    let slot = 0;
    sequences.forEach(({ cache: part }, s) => {
      const first = Math.floor(part.length / layout.tokensPerRow);
      const end = Math.floor((part.length + counts[s]!) / layout.tokensPerRow);
      for (let row = first; row < end; row++)
        rows[written[slot++]!] = histories[s]![(row + 1) * layout.tokensPerRow - 1]!;
    });
    sequences.forEach(({ cache: part }, s) => {
      const end = Math.floor((part.length + counts[s]!) / layout.tokensPerRow);
      const width = sizes[`pages.${name}`]!;
      for (let row = Math.max(0, part.length - layout.reach); row < end; row++) {
        const found = rows[poolRow(inputs[`pages.${name}`]!, width, pageRows, s, row)];
        assert.equal(found, histories[s]![(row + 1) * layout.tokensPerRow - 1], `${name}, row ${row}`);
      }
    });
  }
  for (const [s, { cache: part }] of sequences.entries()) part.advance(counts[s]!);
}

const operations = fc.array(
  fc.oneof(
    fc.record({ kind: fc.constant("append" as const), who: fc.nat(5), count: fc.integer({ min: 1, max: 40 }) }),
    fc.record({ kind: fc.constant("both" as const), count: fc.integer({ min: 1, max: 20 }) }),
    fc.record({ kind: fc.constant("fork" as const), who: fc.nat(5) }),
    fc.record({ kind: fc.constant("rewind" as const), who: fc.nat(5), count: fc.integer({ min: 0, max: 10 }) }),
    fc.record({ kind: fc.constant("clear" as const), who: fc.nat(5) }),
  ),
  { maxLength: 40 },
);

describe("kv cache", () => {
  test("after any appends, forks and rewinds every row within reach is the sequence's own", () => {
    fc.assert(
      fc.property(operations, (steps) => {
        const state = setUp();
        const sequences: Tracked[] = [{ cache: state.cache.createSequence(), history: [] }];
        steps.forEach((step, i) => {
          const who = "who" in step ? sequences[step.who % sequences.length]! : sequences[0]!;
          switch (step.kind) {
            case "append":
              append(state, [who], [step.count], `${i}`);
              break;
            case "both":
              if (sequences.length > 1) append(state, sequences.slice(0, 2), [step.count, step.count], `${i}`);
              break;
            case "fork":
              sequences.push({ cache: who.cache.fork(), history: who.history.slice() });
              break;
            case "rewind": {
              const length = Math.max(0, who.history.length - step.count);
              if (!who.cache.canRewindTo(length)) break; // wound back twice without a step in between
              who.cache.rewindTo(length);
              who.history.length = length;
              break;
            }
            case "clear":
              who.cache.clear();
              who.history.length = 0;
              break;
            default:
              step satisfies never;
          }
        });
        for (const { cache } of sequences) cache.clear();
        for (const { pool, name } of state.cache.layouts) assert.equal(pool.used, 0, `${name} leaks pages`);
      }),
      { numRuns: 300, seed: 7 },
    );
  });

  test("pages out of reach are given back: a long sequence holds a bounded window", () => {
    const state = setUp();
    const sequence = { cache: state.cache.createSequence(), history: [] };
    for (let i = 0; i < 50; i++) append(state, [sequence], [40], `${i}`);
    const used = Object.fromEntries(state.cache.layouts.map(({ name, pool }) => [name, pool.used]));
    assert.ok(used["1x50"]! <= 4, `window: ${used["1x50"]} pages of 32 rows for a reach of 50`);
    assert.equal(used["4xall"], Math.ceil(2000 / 4 / 32));
  });

  test("winding back within the margin always works, further only while the rows are there", () => {
    const state = setUp();
    const sequence = { cache: state.cache.createSequence(), history: [] };
    for (let i = 0; i < 10; i++) append(state, [sequence], [40], `${i}`);
    sequence.cache.rewindTo(390);
    assert.equal(sequence.cache.length, 390);
    assert.equal(sequence.cache.canRewindTo(100), false);
    assert.throws(() => sequence.cache.rewindTo(100), DeviceError);
    assert.throws(() => sequence.cache.rewindTo(391), DeviceError);
  });
});

describe("page pool", () => {
  test("a page that was released by all its users is given out again", () => {
    const pool = new PagePool();
    const page = pool.allocate();
    pool.retain(page);
    pool.release(page);
    assert.equal(pool.isShared(page), false);
    assert.notEqual(pool.allocate(), page);
    pool.release(page);
    assert.equal(pool.allocate(), page);
    assert.equal(pool.size, 2);
  });
});
