/** The real DeepSeek V4 and V4.1 tokenizers against cases recorded from Hugging Face tokenizers 0.23. */
import assert from "node:assert/strict";
import { createHash } from "node:crypto";
import { describe, test } from "node:test";
import { deepseekTokenizer, deepseekTokenizerText, readGzippedJson } from "./deepseek-tokenizer.ts";

const cases = readGzippedJson("tokenizer/cases.json.gz") as {
  encode: { text: string; special: boolean; version: "v4" | "v4.1"; ids: number[] }[];
  decode: { ids: number[]; version: "v4" | "v4.1"; skip_special_tokens: boolean; text: string }[];
  stream: { ids: number[]; version: "v4" | "v4.1"; pieces: string[]; tail: string }[];
};

describe("the DeepSeek tokenizers", () => {
  test("the V4.1 file made from the V4 file and its changes is the published one", () => {
    const sha256 = createHash("sha256").update(deepseekTokenizerText("v4.1")).digest("hex");
    assert.equal(sha256, "c90dfa01249db1be4245780a052ede752e1361c612ac6d08e2bdada7d599476b");
  });
  test(`encode ${cases.encode.length} recorded texts, and decode them back`, () => {
    for (const { text, special, version, ids } of cases.encode) {
      const tokenizer = deepseekTokenizer(version);
      assert.deepEqual(tokenizer.encode(text, { special }), ids, JSON.stringify(text));
      assert.equal(tokenizer.decode(ids), text);
    }
  });
  test(`decode ${cases.decode.length} recorded lists of ids`, () => {
    for (const { ids, version, skip_special_tokens, text } of cases.decode) {
      const found = deepseekTokenizer(version).decode(ids, { skipSpecialTokens: skip_special_tokens });
      assert.equal(found, text, String(ids));
    }
  });
  test(`stream ${cases.stream.length} recorded lists of ids in pieces that end at characters`, () => {
    for (const { ids, version, pieces, tail } of cases.stream) {
      const decoder = deepseekTokenizer(version).createDecoder();
      assert.deepEqual(
        ids.map((id) => decoder.push(id)),
        pieces,
        String(ids),
      );
      assert.equal(decoder.end(), tail);
    }
  });
});
