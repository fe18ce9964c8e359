/** Conversations against the prompts of DeepSeek's own encoder (deepseek-recipe 0.2.0) and of the checkpoints' encoder. */
import assert from "node:assert/strict";
import { describe, test } from "node:test";
import { parseChatRequest } from "../../src/chat/chat-request.ts";
import type { DialectName } from "../../src/chat/dialect.ts";
import { encodePrompt } from "../../src/chat/prompt.ts";
import { renderPrompt } from "../../src/chat/render-prompt.ts";
import { RequestError } from "../../src/errors.ts";
import { type Json, type JsonObject, parseJson } from "../../src/json/parse-json.ts";
import { planImage, releasedImagePlan } from "../../src/model/vision/image-plan.ts";
import { deepseekTokenizer, readGzippedJson, readGzippedText } from "./deepseek-tokenizer.ts";

interface PromptCase {
  readonly name: string;
  readonly version: DialectName;
  readonly prompt?: string;
  readonly special_ranges_utf16?: [number, number][];
  readonly token_ids?: number[];
  readonly images?: string[];
  readonly parse?: { start: string; in_tool_calls: boolean; tool_calls: boolean; json: boolean; stop: string[] };
  readonly error?: { status: number };
}

const file = readGzippedJson("chat/cases.json.gz") as {
  cases: PromptCase[];
  image_token_counts: { width: number; height: number; tokens: number }[];
};
// The requests are read with nothing lost: 1.0 is not 1, and keys keep their order.
const requests = (parseJson(readGzippedText("chat/cases.json.gz")) as JsonObject).get("cases") as readonly Json[];

describe("render prompts", () => {
  file.cases.forEach((expected, i) => {
    test(expected.name, () => {
      const render = () => renderPrompt(parseChatRequest(requests[i]!), expected.version);
      if (expected.error !== undefined) {
        assert.throws(render, RequestError);
        return;
      }
      const prompt = render();
      assert.equal(prompt.text, expected.prompt);
      assert.deepEqual(encodePrompt(prompt, deepseekTokenizer(expected.version)), expected.token_ids);
      if (expected.special_ranges_utf16) assert.deepEqual(prompt.specialRanges, expected.special_ranges_utf16);
      assert.deepEqual(prompt.images, expected.images ?? []);
      if (expected.parse === undefined) return;
      assert.deepEqual(prompt.parse, {
        start: expected.parse.start.replace("_continuation", "Continuation"),
        toolCalls: expected.parse.tool_calls,
        inToolCalls: expected.parse.in_tool_calls,
        json: expected.parse.json,
        stop: expected.parse.stop,
      });
    });
  });
});

test(`${file.image_token_counts.length} image sizes take the recorded number of tokens`, () => {
  for (const { width, height, tokens } of file.image_token_counts) {
    assert.equal(planImage(width, height, releasedImagePlan).tokens, tokens, `${width} x ${height}`);
  }
});
