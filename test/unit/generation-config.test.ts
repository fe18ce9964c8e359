/** Defaults of a model's folder: what cannot be one is left out and said, so that no request fails of it. */
import assert from "node:assert/strict";
import { cpSync, mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, describe, test } from "node:test";
import { embeddedModel, loadModel } from "../../src/engine/load-model.ts";

const folder = mkdtempSync(join(tmpdir(), "freehold-generation-config-"));
after(() => rmSync(folder, { recursive: true }));
cpSync(embeddedModel, folder, { recursive: true });

async function defaultsOf(config: Readonly<Record<string, unknown>>) {
  writeFileSync(join(folder, "generation_config.json"), JSON.stringify(config));
  using model = await loadModel(folder, { contextLength: 64 });
  const { tokenIds } = await model.complete([1, 2], { maxTokens: 1 });
  assert.equal(tokenIds.length, 1);
  return { ...model.defaults, notes: model.notes };
}

describe("generation_config.json", () => {
  test("gives the defaults; a top_k of -1 is all, as elsewhere", async () => {
    const { notes, ...defaults } = await defaultsOf({ temperature: 0.5, top_p: 0.9, top_k: -1, max_new_tokens: 7 });
    assert.deepEqual(defaults, { temperature: 0.5, topP: 0.9, topK: 0, maxTokens: 7, eosTokenIds: [] });
    assert.deepEqual(notes, []);
  });

  for (const [key, value] of [
    ["temperature", -1],
    ["temperature", "warm"],
    ["top_p", 5],
    ["top_k", 1.5],
    ["top_k", -4],
    ["max_new_tokens", 0],
    ["max_new_tokens", 1.5],
  ] as const) {
    test(`${key} ${JSON.stringify(value)} is left out with a note`, async () => {
      const { notes, ...defaults } = await defaultsOf({ [key]: value });
      assert.deepEqual(defaults, { eosTokenIds: [] });
      assert.match(notes.join(), new RegExp(`generation_config.json: ${key} is `));
    });
  }
});
