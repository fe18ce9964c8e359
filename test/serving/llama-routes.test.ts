/** llama-server's routes on the embedded model, in one process. Its own suite is run by test/llama-server-suite. */
import assert from "node:assert/strict";
import { after, before, describe, test } from "node:test";
import { openTokenizer } from "../../src/engine/load-model.ts";
import { infillTokens } from "../../src/server/api/llama/infill.ts";
import { SingleProcess } from "../../src/server/processes/single-process.ts";
import { resolveServeConfig } from "../../src/server/serve-config.ts";

interface Answer {
  readonly content: string;
  readonly tokens: readonly number[];
  readonly stop: boolean;
  readonly stop_type: string;
  readonly tokens_predicted: number;
  readonly truncated: boolean;
  readonly timings: Readonly<Record<string, number>>;
}

describe("llama-server's routes", () => {
  let server: SingleProcess;
  let url: string;
  before(async () => {
    const engineOptions = { threads: 1, contextLength: 128, cacheDiskBytes: 0 };
    const config = resolveServeConfig({ port: 0, log: "off", singleProcess: true, engineOptions });
    server = await SingleProcess.start(config, { version: "0" });
    url = await server.url();
  });
  after(() => server.stop(0));

  const post = (path: string, body: object) =>
    fetch(url + path, {
      method: "POST",
      headers: { "content-type": "application/json" },
      body: JSON.stringify(body),
    });
  const request = { prompt: "The capital of France", n_predict: 12, temperature: 0, ignore_eos: true };

  test("a completion is the same whole and streamed, with a part a token and the sum at the end", async () => {
    const whole = (await (await post("/completion", { ...request, return_tokens: true })).json()) as Answer;
    assert.equal(whole.stop_type, "limit");
    assert.equal(whole.timings.predicted_n, 12);
    const text = await (await post("/completion", { ...request, stream: true })).text();
    const parts = [...text.matchAll(/^data: (.*)$/gm)].map(([, data]) => JSON.parse(data!) as Answer);
    assert.equal(parts.map(({ content }) => content).join(""), whole.content);
    assert.deepEqual(
      parts.flatMap(({ tokens }) => tokens),
      whole.tokens,
    );
    assert.deepEqual(
      parts.map(({ stop }) => stop),
      parts.map((_, i) => i === parts.length - 1),
    );
  });

  test("an answer that the context ends says so", async () => {
    const answer = (await (await post("/completion", { ...request, n_predict: -2 })).json()) as Answer;
    assert.equal(answer.truncated, true);
    assert.ok(answer.tokens_predicted > 100);
  });

  const refused = [
    { body: { ...request, grammar: "root ::= x" }, status: 400, type: "invalid_request_error" },
    {
      body: { ...request, prompt: { prompt_string: "x", multimodal_data: ["a"] } },
      status: 501,
      type: "not_supported_error",
    },
    { body: { ...request, prompt: "word ".repeat(500) }, status: 400, type: "exceed_context_size_error" },
    { body: { ...request, prompt: [5000] }, status: 400, type: "invalid_request_error" },
  ];
  for (const { body, status, type } of refused) {
    test(`${JSON.stringify(body).slice(0, 60)} is refused with ${status} ${type}`, async () => {
      const answer = await post("/completion", body);
      const { error } = (await answer.json()) as { error: { code: number; type: string } };
      assert.deepEqual([answer.status, error.code, error.type], [status, status, type]);
    });
  }

  test("a list of prompts is answered with a list, and fields can be picked", async () => {
    const answer = await post("/completion", {
      ...request,
      prompt: ["a", "b"],
      response_fields: ["timings/predicted_n"],
    });
    assert.deepEqual(await answer.json(), [{ "timings/predicted_n": 12 }, { "timings/predicted_n": 12 }]);
  });

  test("a gap between files that are too long is cut to what fits, whatever their lengths", async () => {
    const { tokenizer } = await openTokenizer();
    const word = "wörld 世界 ";
    for (const [before_, behind] of [
      [900, 900],
      [900, 0],
      [0, 900],
      [3, 900],
    ] as const) {
      const body = { input_prefix: word.repeat(before_), input_suffix: word.repeat(behind), prompt: "x" };
      const ids = await infillTokens({ ...body, input_extra: [{ text: word.repeat(50) }] }, 96, tokenizer);
      assert.ok(ids.length <= 96, `${ids.length} tokens of ${before_} and ${behind} words`);
      assert.ok(ids.length > 60, `only ${ids.length} tokens of ${before_} and ${behind} words`);
    }
    const answer = await post("/infill", { input_prefix: word.repeat(900), input_suffix: "}", n_predict: 4 });
    assert.equal(answer.status, 200);
  });
});
