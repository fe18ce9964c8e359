/** The radix tree against a plain list, and the pages that remembered sequences hold against a plain count. */
import assert from "node:assert/strict";
import { describe, test } from "node:test";
import fc from "fast-check";
import { depthBefore, PrefixIndex } from "../../src/engine/cache/prefix-index.ts";
import { commonPrefix } from "../../src/engine/generation.ts";

/** Few different tokens, so that sequences often begin alike. */
const tokens = fc.array(fc.nat(2), { maxLength: 12 });
const operation = fc.record({
  kind: fc.constantFrom("set", "set", "delete"),
  namespace: fc.constantFrom("a", "b"),
  tokens,
});

describe("the radix tree of prefixes", () => {
  test("finds what a search through the whole list finds, and keeps no node that nobody needs", () => {
    fc.assert(
      fc.property(fc.array(operation, { maxLength: 60 }), tokens, (operations, prompt) => {
        const index = new PrefixIndex<string>();
        const list = new Map<string, number[]>();
        for (const { kind, namespace, tokens: ids } of operations) {
          const name = `${namespace} ${ids}`;
          if (kind === "set") {
            index.set(namespace, ids, name);
            list.set(name, ids);
          } else {
            index.delete(namespace, ids);
            list.delete(name);
          }
        }
        for (const namespace of ["a", "b"]) {
          const mine = [...list].filter(([name]) => name.startsWith(namespace));
          const { depth, whole, longer } = index.match(namespace, prompt);
          const expected = mine.filter(([, ids]) => commonPrefix(ids, prompt) === ids.length);
          expected.sort(([, a], [, b]) => b.length - a.length);
          assert.deepEqual(
            whole.map(({ value }) => value),
            expected.map(([name]) => name),
          );
          assert.equal(depth, Math.max(0, ...mine.map(([, ids]) => commonPrefix(ids, prompt))));
          for (const { value } of longer) assert.equal(commonPrefix(list.get(value!)!, prompt), depth);
          const hasLonger = mine.some(([, ids]) => commonPrefix(ids, prompt) === depth && ids.length > depth);
          assert.equal([...longer].length > 0, hasLonger);
          assert.equal(index.values(namespace).length, mine.length);
          for (const node of whole.slice(0, -1)) assert.equal(depthBefore(node), whole[whole.indexOf(node) + 1]!.depth);
        }
        assert.ok(index.size <= 2 * list.size, `${index.size} nodes for ${list.size} sequences`);
        for (const [name, ids] of list) index.delete(name[0]!, ids);
        assert.equal(index.size, 0);
      }),
      { numRuns: 500, seed: 3 },
    );
  });

  test("looks at a bounded number of sequences beside a prompt", () => {
    const index = new PrefixIndex<number>();
    for (let i = 0; i < 10_000; i++) index.set("a", [7, i], i);
    assert.ok([...index.match("a", [7]).longer].length <= 64);
  });
});
