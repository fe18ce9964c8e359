/** The embedded model against values recorded from transformers 5.24 (stored weights, float32 arithmetic). */
import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { join } from "node:path";
import { describe, test } from "node:test";
import { embeddedModel, loadModel } from "../../src/engine/load-model.ts";

const golden = JSON.parse(readFileSync(join(embeddedModel, "golden.json"), "utf8")) as {
  prompts: { name: string; prompt: string; ids: number[]; top5: [number, number][]; greedy: number[]; text: string }[];
  heldout: { nll_per_document: number[]; documents: number };
};
const model = await loadModel();

describe("the embedded model", () => {
  for (const { name, prompt, ids, top5, greedy, text } of golden.prompts) {
    test(`${name}: prompt ids, the five greatest logits and the greedy answer are those of the reference`, async () => {
      assert.deepEqual(model.encode(prompt, { special: true }), ids);
      const [logits] = await model.logits(ids, { last: true });
      const order = Array.from(logits!.keys()).sort((a, b) => logits![b]! - logits![a]!);
      top5.forEach(([id, logit], i) => {
        assert.ok(Math.abs(logits![id]! - logit) <= 1e-3, `token ${id}: ${logits![id]}, expected ${logit}`);
        assert.equal(order[i], id);
      });
      const result = await model.complete(ids, { temperature: 0, maxTokens: greedy.length });
      assert.deepEqual(result.tokenIds, greedy);
      assert.equal(model.decode(result.tokenIds), text);
    });
  }

  test("documents of the held-out text have the recorded likelihood", async () => {
    const documents = readFileSync(join(embeddedModel, "heldout.txt"), "utf8").split("\n\n");
    assert.equal(documents.length, golden.heldout.documents);
    // Every fifth document: the whole text is a benchmark's work.
    for (let d = 0; d < documents.length; d += 5) {
      const ids = [model.config.bosTokenId, ...model.encode(documents[d]!), model.config.eosTokenIds[0]!];
      const rows = await model.logits(ids.slice(0, -1));
      const nats = rows.reduce((sum, row, i) => {
        const largest = Math.max(...row);
        const total = row.reduce((inner, logit) => inner + Math.exp(logit - largest), 0);
        return sum + largest + Math.log(total) - row[ids[i + 1]!]!;
      }, 0);
      const expected = golden.heldout.nll_per_document[d]!;
      assert.ok(Math.abs(nats / expected - 1) < 1e-4, `document ${d}: ${nats} nats, expected ${expected}`);
    }
  });
});
