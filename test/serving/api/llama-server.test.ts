import assert from "node:assert/strict";
import { describe, test } from "node:test";
import { llamaCompletion, llamaEvent, props } from "../../../src/server/api/schemas/llama.ts";
import { type ResponsesEvent, responsesEvent, responseTokenCount } from "../../../src/server/api/schemas/responses.ts";
import { detokenizeAnswer, tokenizeAnswer } from "../../../src/server/api/schemas/tokens.ts";
import { get, post, postStream } from "./client.ts";
import { startRouteServer } from "./route-server.ts";
import { engineInfo, ScriptedEngine, tokenizer } from "./scripted-engine.ts";

describe("llama-server's routes", () => {
  const ends = [
    { options: {}, type: "eos", content: "one two STOP three" },
    { options: { n_predict: 1 }, type: "limit", content: "one" },
    { options: { stop: ["STOP"] }, type: "word", content: "one two " },
  ];
  for (const { options, type, content } of ends) {
    test(`/completion tells that an answer ends by ${type}, whole and streamed`, async () => {
      await using server = await startRouteServer(new ScriptedEngine(["one two STOP three"]));
      const request = { prompt: "Count:", ...options };
      const whole = llamaCompletion.parse((await post(server, "/completion", request)).body);
      assert.equal(whole.stop_type, type);
      if (type !== "limit") assert.equal(whole.content, content);
      const { events } = await postStream(server, "/completion", { ...request, stream: true });
      const parts = events.map(({ data }) => llamaEvent.parse(JSON.parse(data)));
      assert.equal(parts.map((part) => part.content).join(""), whole.content);
      // Times and the drawn seed differ from request to request.
      const constant = ({ timings: _, generation_settings: settings, ...rest }: typeof whole) => ({
        ...rest,
        asked: { ...settings, seed: 0, stream: false },
      });
      assert.deepEqual(constant(llamaCompletion.parse(parts.at(-1))), { ...constant(whole), content: "" });
    });
  }

  test("/completion takes texts and token ids by turns", async () => {
    const engine = new ScriptedEngine(["x"]);
    await using server = await startRouteServer(engine);
    await post(server, "/completion", { prompt: [20, "and", 30] });
    assert.deepEqual(engine.requests[0]!.tokenIds, [20, ...tokenizer.encode("and"), 30]);
    assert.equal((await post(server, "/completion", { prompt: [99_999_999] })).status, 400);
    assert.equal((await post(server, "/completion", { prompt: "x", grammar: "root ::= x" })).status, 400);
  });

  test("/infill puts prefix, suffix, other files and the beginning of the gap in their places", async () => {
    const engine = new ScriptedEngine(["return a"]);
    await using server = await startRouteServer(engine);
    const request = {
      input_prefix: "f(a) {",
      input_suffix: "}",
      prompt: "  ",
      input_extra: [{ filename: "b.ts", text: "let b" }],
    };
    assert.equal(llamaCompletion.parse((await post(server, "/infill", request)).body).content, "return a");
    const prompt = tokenizer.decode(engine.requests[0]!.tokenIds);
    assert.match(prompt, /fim▁begin｜>b\.ts\nlet b\n\nf\(a\) \{<｜fim▁hole｜>\}<｜fim▁end｜> {2}$/);
  });

  test("/v1/responses tells its progress and times when it is asked to, and counts tokens", async () => {
    await using server = await startRouteServer(new ScriptedEngine(["one two three"]), { thinking: false });
    const request = { input: "Count", stream: true };
    const eventsOf = async (more: object) =>
      (await postStream(server, "/v1/responses", { ...request, ...more })).events.map(({ data }) =>
        responsesEvent.parse(JSON.parse(data)),
      );
    const plain = await eventsOf({});
    assert.ok(plain.every((event) => !("timings" in event || "prompt_progress" in event)));
    const told = await eventsOf({ timings_per_token: true, return_progress: true });
    const progress = told.filter((event) => event.type === "response.in_progress" && event.prompt_progress);
    assert.ok(progress.length > 0);
    const timed = told.filter((event) => "timings" in event).map(({ type }) => type);
    assert.equal(timed.at(-1), "response.completed");
    assert.ok(timed.includes("response.output_text.delta"));
    const { body } = await post(server, "/v1/responses/input_tokens", { input: "Count" });
    const { input_tokens: tokens } = responseTokenCount.parse(body);
    const completed = plain.at(-1) as Extract<ResponsesEvent, { type: "response.completed" }>;
    assert.equal(tokens, completed.response.usage!.input_tokens);
  });

  test("/props, /tokenize, /detokenize and /apply-template", async () => {
    await using server = await startRouteServer(new ScriptedEngine(["x"]));
    assert.equal(
      props.parse((await get(server, "/props")).body).default_generation_settings.n_ctx,
      engineInfo.contextLength,
    );
    const text = "Hello 世界</think>";
    const ids = tokenizeAnswer.parse(
      (await post(server, "/tokenize", { content: text, add_special: true })).body,
    ).tokens;
    assert.deepEqual(ids, [0, ...tokenizer.encode(text, { special: true })]);
    const back = detokenizeAnswer.parse((await post(server, "/detokenize", { tokens: ids.slice(1) })).body);
    assert.equal(back.content, text);
    const pieces = tokenizeAnswer.parse(
      (await post(server, "/tokenize", { content: "世 \u{1F600}", with_pieces: true })).body,
    );
    const bytes = pieces.tokens.map((token) => Buffer.from((token as { piece: string | number[] }).piece as string));
    assert.equal(Buffer.concat(bytes).toString("utf8"), "世 \u{1F600}");
    const messages = [{ role: "user", content: "Hi" }];
    const template = (await post(server, "/apply-template", { messages })).body as { prompt: string };
    const chat = tokenizeAnswer.parse((await post(server, "/tokenize", { messages })).body).tokens;
    assert.deepEqual(chat, tokenizer.encode(template.prompt, { special: true }));
  });
});
