/** A context of random rows: as long as a computed one in every cache, and decoding behind it reads nothing that was not written. */
import assert from "node:assert/strict";
import { describe, test } from "node:test";
import { syntheticSequence } from "../../src/engine/cache/synthetic-context.ts";
import { smallConfigs, smallModel } from "../small-model.ts";

for (const [name, config] of Object.entries(smallConfigs))
  describe(`a synthetic context of ${name}`, () => {
    for (const length of [1, 127, 128, 700])
      test(`of ${length} tokens has the pages of a computed one`, async () => {
        const { runner, device } = await smallModel(config);
        using _ = device;
        using computed = runner.createSequence();
        await runner.append({ sequence: computed, tokenIds: new Array<number>(length).fill(7), outputs: 0 });
        using sequence = await syntheticSequence(runner, length);
        assert.equal(sequence.length, length);
        for (const {
          name: layout,
          layout: { reach },
        } of runner.cache.layouts) {
          const [made, expected] = [sequence, computed].map(({ cache }) => [...cache.pagesOf(layout).keys()]);
          // A computed sequence also has what winding back needs.
          assert.deepEqual(
            made,
            reach === Number.POSITIVE_INFINITY ? expected : expected!.slice(expected!.length - made!.length),
            layout,
          );
        }
        for (let i = 0; i < 4; i++) {
          const [logits] = await runner.append({ sequence, tokenIds: [i], outputs: 1 });
          assert.ok(logits!.every(Number.isFinite));
        }
      });
  });
