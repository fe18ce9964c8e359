import assert from "node:assert/strict";
import { describe, test } from "node:test";
import { ShapeError } from "../../src/errors.ts";
import { Graph } from "../../src/tensor/graph.ts";
import { planMemory } from "../../src/tensor/memory-plan.ts";
import { add } from "../../src/tensor/ops/add.ts";
import { linear } from "../../src/tensor/ops/linear.ts";
import { scale } from "../../src/tensor/ops/scale.ts";
import { writeRows } from "../../src/tensor/ops/write-rows.ts";
import { poolRow, rowsPerPage } from "../../src/tensor/paging.ts";

const half = { factor: 0.5 };

describe("graph", () => {
  test("calling an op records a node with the inferred shape, and computes nothing", () => {
    const g = new Graph();
    const y = g.call(linear, [g.input("x", "f32", ["tokens", 8]), g.weight("w", [4, 8])], {});
    assert.deepEqual(y.shape, ["tokens", 4]);
    assert.equal(g.nodes.length, 1);
    assert.deepEqual([...g.weights.keys()], ["w"]);
  });

  test("a weight whose columns do not fit is refused, and the error says both numbers", () => {
    const g = new Graph();
    assert.throws(
      () => g.call(linear, [g.input("x", "f32", ["tokens", 8]), g.weight("w", [4, 9])], {}),
      (error) => error instanceof ShapeError && /\[8\].*\[9\]/.test(error.message),
    );
  });

  test("a view with another number of elements is refused", () => {
    const g = new Graph();
    const x = g.input("x", "f32", ["tokens", 8]);
    assert.deepEqual(g.reshape(x, ["tokens", 2, 4]).shape, ["tokens", 2, 4]);
    assert.throws(() => g.reshape(x, ["tokens", 2, 3]), ShapeError);
    assert.throws(() => g.reshape(x, [8]), ShapeError);
  });

  test("one name for two shapes, or a cache declared twice, is refused", () => {
    const g = new Graph();
    g.weight("w", [4, 8]);
    assert.throws(() => g.weight("w", [8, 4]), ShapeError);
    g.cache("c", 4, { tokensPerRow: 1, reach: 3 });
    assert.throws(() => g.cache("c", 4, { tokensPerRow: 1, reach: 3 }), ShapeError);
  });

  test("a written cache is a new tensor in the same storage", () => {
    const g = new Graph();
    const cache = g.cache("c", 4, { tokensPerRow: 1, reach: 3 });
    const written = g.call(writeRows, [cache, g.input("x", "f32", ["tokens", 4]), g.slots(cache)], {});
    assert.notEqual(written, cache);
    assert.equal(written.storage, cache.storage);
  });
});

describe("memory plan", () => {
  const sizes = { tokens: 4 };

  test("values whose lifetimes overlap have memory of their own, dead ones give theirs back", () => {
    const g = new Graph();
    const x = g.input("x", "f32", ["tokens", 16]);
    const w = g.weight("w", [16, 16]);
    let y = g.call(linear, [x, w], {});
    for (let i = 0; i < 10; i++) y = g.call(linear, [y, w], {});
    const plan = planMemory(g, sizes, [y]);
    assert.equal(plan.arenaElements, 2 * 4 * 16); // two buffers taking turns
  });

  test("an op that may overwrite takes the memory of its dying input, but not of one that is read later", () => {
    const g = new Graph();
    const x = g.call(linear, [g.input("x", "f32", ["tokens", 16]), g.weight("w", [16, 16])], {});
    const a = g.call(scale, [x], half);
    const b = g.call(scale, [a], half);
    const sum = g.call(add, [a, b], {});
    const { offsets } = planMemory(g, sizes, [sum]);
    assert.equal(offsets.get(x.storage), offsets.get(a.storage));
    assert.notEqual(offsets.get(a.storage), offsets.get(b.storage));
  });

  test("working memory overlaps nothing that lives at the same time, and gives its place back", () => {
    const g = new Graph();
    const w = g.weight("w", [16, 16]);
    const a = g.call(linear, [g.input("x", "f32", ["tokens", 16]), w], {});
    const b = g.call(linear, [a, w], {});
    const c = g.call(linear, [b, w], {});
    const during = (firstNode: number, lastNode: number) => ({ firstNode, lastNode, elements: 4 * 16 });
    const working = [during(0, 0), during(1, 2), during(2, 2)];
    const { offsets, arenaElements } = planMemory(g, sizes, [c], working);
    const [first, second, third] = working.map((memory) => offsets.get(memory));
    assert.equal(new Set([first, offsets.get(a.storage)]).size, 2);
    assert.equal(new Set([second, offsets.get(a.storage), offsets.get(b.storage)]).size, 3);
    assert.equal(new Set([second, third, offsets.get(b.storage), offsets.get(c.storage)]).size, 4);
    assert.equal(arenaElements, 4 * 4 * 16); // four at the last node, and no more
  });

  test("a kept value is overwritten by nobody", () => {
    const g = new Graph();
    const x = g.call(linear, [g.input("x", "f32", ["tokens", 16]), g.weight("w", [16, 16])], {});
    const a = g.call(scale, [x], half);
    const { offsets } = planMemory(g, sizes, [x, a]);
    assert.notEqual(offsets.get(x.storage), offsets.get(a.storage));
  });
});

describe("paging", () => {
  test("a table that goes round maps late rows to the places of early pages", () => {
    const pages = [7, 3, 9]; // one sequence, table of 3 pages of 4 rows
    assert.equal(poolRow(pages, 3, 4, 0, 0), 28);
    assert.equal(poolRow(pages, 3, 4, 0, 5), 13);
    assert.equal(poolRow(pages, 3, 4, 0, 12), 28); // page 3 stands where page 0 stood
  });
  test("pages of growing caches hold 128 tokens, whatever the ratio", () => {
    const all = Number.POSITIVE_INFINITY;
    for (const tokensPerRow of [1, 2, 4, 128]) {
      assert.equal(rowsPerPage({ tokensPerRow, reach: all }) * tokensPerRow, 128);
    }
  });
});
