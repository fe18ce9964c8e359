import assert from "node:assert/strict";
import { describe, test } from "node:test";
import fc from "fast-check";
import type { ParseOptions } from "../../../src/chat/output-parser.ts";
import {
  type AnswerDelta,
  type AnswerPlan,
  AnswerReader,
  type AnswerResult,
} from "../../../src/server/generation/answer-reader.ts";
import { closeArguments } from "../../../src/server/generation/close-json.ts";
import { append } from "../../../src/server/generation/run-answers.ts";
import { logprobOf, tokenizer } from "./scripted-engine.ts";

const D = "｜DSML｜";
const callOf = (name: string, ...parameters: string[]) =>
  `<${D}invoke name="${name}">\n${parameters.join("\n")}\n</${D}invoke>\n`;
const textParameter = (name: string, value: string) =>
  `<${D}parameter name="${name}" string="true">${value}</${D}parameter>`;
const jsonParameter = (name: string, value: string) =>
  `<${D}parameter name="${name}" string="false">${value}</${D}parameter>`;
const block = (...calls: string[]) => `\n\n<${D}tool_calls>\n${calls.join("")}</${D}tool_calls>`;

const parse: ParseOptions = { start: "content", toolCalls: true, inToolCalls: false, json: false, stop: [] };

function plan(changes: Partial<AnswerPlan> = {}): AnswerPlan {
  return {
    parse,
    stop: [],
    stopTokenIds: new Set([1]),
    toolNames: new Set(["get_weather", "read"]),
    maxCalls: Number.POSITIVE_INFINITY,
    opened: [],
    ...changes,
  };
}

interface Read {
  readonly deltas: AnswerDelta[];
  readonly result: AnswerResult;
}

function read(output: string, given: AnswerPlan, finish: "stop" | "length" = "stop", withLogprobs = false): Read {
  const reader = new AnswerReader(tokenizer, given);
  const deltas: AnswerDelta[] = [];
  for (const id of tokenizer.encode(output, { special: true })) {
    for (const delta of reader.push(id, withLogprobs ? logprobOf(id, 2) : undefined)) append(deltas, delta);
  }
  for (const delta of reader.end(finish)) append(deltas, delta);
  return { deltas, result: reader.result };
}

/** What a client that joins all deltas has. */
function joined(deltas: readonly AnswerDelta[]) {
  const text = { reasoning: "", content: "" };
  const calls: { id: string; name: string; arguments: string }[] = [];
  for (const delta of deltas) {
    if (delta.type === "toolCall") {
      assert.equal(delta.index, calls.length, "calls come in their order");
      calls.push({ id: delta.id, name: delta.name, arguments: "" });
    } else if (delta.type === "toolArguments") calls[delta.index]!.arguments += delta.text;
    else text[delta.type] += delta.text;
  }
  return { ...text, calls };
}

describe("an answer", () => {
  test("with calls is told as calls whose arguments are JSON", () => {
    const { result } = read(
      `Let me see.${block(callOf("get_weather", textParameter("city", 'Par"is'), jsonParameter("days", "[1, 2]")))}`,
      plan(),
    );
    assert.equal(result.finish, "tool_calls");
    assert.equal(result.content, "Let me see.");
    assert.deepEqual(JSON.parse(result.calls[0]!.arguments), { city: 'Par"is', days: [1, 2] });
  });

  test("keeps its own bytes, which render the history exactly", () => {
    const output = `Hm.${block(callOf("read", jsonParameter("lines", "[1,2]")))}`;
    const { result } = read(output, plan());
    const text = result.verbatim!.map((part) => ("text" in part ? part.text : part.special)).join("");
    assert.equal(text, output);
  });

  const repaired = [
    { written: "Get_Weather", becomes: "get_weather" },
    { written: "functions.read", becomes: "read" },
    { written: "tools__read", becomes: "read" },
  ];
  for (const { written, becomes } of repaired) {
    test(`that calls ${written} calls ${becomes}`, () => {
      const { result } = read(block(callOf(written)), plan());
      assert.deepEqual(
        result.calls.map(({ name, arguments: text }) => [name, text]),
        [[becomes, "{}"]],
      );
      assert.equal(result.verbatim, undefined, "what was repaired is rendered anew");
    });
  }

  test("that calls a tool which does not exist shows the call as text", () => {
    const { result, deltas } = read(block(callOf("rm", textParameter("path", "/")), callOf("read")), plan());
    assert.deepEqual(
      result.calls.map(({ name }) => name),
      ["read"],
    );
    assert.equal(result.content, 'rm({"path": "/"})');
    assert.deepEqual(joined(deltas).calls[0]!.name, "read");
  });

  test("that opens a block and calls nothing shows what it wrote", () => {
    const { result } = read(`A\n\n<${D}tool_calls>\nnothing here`, plan());
    assert.equal(result.finish, "stop");
    assert.match(result.content, /nothing here/);
  });

  test("is cut behind the calls that were asked for", () => {
    const { result } = read(
      block(callOf("read", textParameter("path", "a")), callOf("read", textParameter("path", "b"))),
      plan({ maxCalls: 1 }),
    );
    assert.deepEqual(
      result.calls.map(({ arguments: text }) => text),
      ['{"path": "a"}'],
    );
    assert.equal(result.finish, "tool_calls");
  });

  test("that a stop string ends shows nothing of it and tells which", () => {
    const { result } = read("one two STOP three", plan({ stop: ["STOP", "three"] }));
    assert.deepEqual([result.content, result.stopString, result.finish], ["one two ", "STOP", "stop"]);
  });

  test("cut anywhere has arguments that are JSON, and begins like the whole", () => {
    const output = `Hi.${block(callOf("read", textParameter("path", 'a\\"b\u00e9'), jsonParameter("n", '{"a": [1.5e3, true, {"b": "\\u00e9\\\\"}], "c": null}')), callOf("get_weather", jsonParameter("x", "-1")))}`;
    const ids = tokenizer.encode(output, { special: true });
    const whole = read(output, plan()).result;
    for (let length = 0; length <= ids.length; length++) {
      const reader = new AnswerReader(tokenizer, plan());
      const deltas = ids.slice(0, length).flatMap((id) => reader.push(id));
      deltas.push(...reader.end("length"));
      const told = joined(deltas);
      for (const { arguments: text } of told.calls) JSON.parse(text);
      assert.deepEqual(
        told.calls.map(({ name, arguments: text }) => [name, text]),
        reader.result.calls.map(({ name, arguments: text }) => [name, text]),
      );
      assert.ok(whole.content.startsWith(reader.result.content) || reader.result.calls.length === 0);
      if (length < ids.length - 4) assert.equal(reader.result.finish, "length");
    }
  });

  const pieces = fc.oneof(
    fc.constantFrom(
      "<",
      "\n",
      "</think>",
      D,
      `</${D}`,
      `<${D}tool_calls>`,
      callOf("read"),
      block(callOf("rm")),
      "STOP",
      "ST",
      "é",
      "\u{1F600}",
      '"',
      '{"a":',
    ),
    fc.constant(block(callOf("read", textParameter("p", "<a>\n"), jsonParameter("q", "{")))),
    fc.string({ maxLength: 6, unit: "binary" }),
  );
  const outputs = fc.array(pieces, { maxLength: 12 }).map((parts) => parts.join(""));
  const starts = fc.constantFrom<ParseOptions["start"]>(
    "reasoning",
    "content",
    "contentContinuation",
    "reasoningContinuation",
  );

  test("streamed is the answer as a whole, for any output, cut and plan", () => {
    fc.assert(
      fc.property(
        outputs,
        starts,
        fc.boolean(),
        fc.boolean(),
        fc.constantFrom("stop", "length"),
        fc.constantFrom(1, 9),
        (output, start, json, toolCalls, finish, maxCalls) => {
          const given = plan({ parse: { ...parse, start, json, toolCalls, stop: ["STOP"] }, maxCalls });
          const { deltas, result } = read(output, given, finish, true);
          const told = joined(deltas);
          assert.equal(told.content, result.content);
          assert.equal(told.reasoning, result.reasoning);
          assert.deepEqual(told.calls, result.calls);
          for (const { name, arguments: text } of result.calls) {
            assert.ok(given.toolNames.has(name));
            const value: unknown = JSON.parse(text);
            assert.ok(typeof value === "object" && value !== null && !Array.isArray(value));
          }
          assert.ok(result.calls.length <= maxCalls);
          if (!json && !toolCalls) assert.ok(!result.content.includes("STOP"), result.content);
        },
      ),
      { numRuns: 600 },
    );
  });

  test("has the log probabilities of exactly the tokens that its text shows", () => {
    fc.assert(
      fc.property(
        fc.array(fc.constantFrom("a", " b", "\n", "é", "\u{1F600}", "ST", "OP", " STO", "<", "word "), {
          maxLength: 20,
        }),
        (parts) => {
          const output = parts.join("");
          const { deltas, result } = read(output, plan({ stop: ["STOP"] }), "stop", true);
          const tokens = deltas.flatMap((delta) => (delta.type === "content" ? (delta.tokens ?? []) : []));
          const bytes = Buffer.concat(tokens.map((token) => Buffer.from(token.bytes))).toString("utf8");
          // Leading newlines are dropped from the text alone; the last token may reach into the stop string or a held newline.
          assert.ok(
            bytes.replace(/^\n+/, "").startsWith(result.content),
            `${JSON.stringify(bytes)} shows ${JSON.stringify(result.content)}`,
          );
          const beyond = Buffer.byteLength(bytes.replace(/^\n+/, "")) - Buffer.byteLength(result.content);
          const last = tokens.at(-1);
          assert.ok(beyond === 0 || beyond < last!.bytes.length, `${beyond} bytes too many`);
        },
      ),
      { numRuns: 400 },
    );
  });
});

describe("closing cut arguments", () => {
  const rows = [
    { streamed: "", rest: "", whole: {} },
    { streamed: '{"a": "x', rest: "", whole: { a: "x" } },
    { streamed: '{"a": "x\\', rest: "", whole: { a: "x\\" } },
    { streamed: '{"a": ', rest: "", whole: { a: null } },
    { streamed: '{"a": ', rest: "tru", whole: { a: true } },
    { streamed: '{"a": ', rest: "-", whole: { a: -0 } },
    { streamed: '{"a": ', rest: "1.5e", whole: { a: 1.5 } },
    { streamed: '{"a": ', rest: '{"b": [1, "c\\u00', whole: { a: { b: [1, "c\u0000"] } } },
    { streamed: '{"a": ', rest: '{"b"', whole: { a: { b: null } } },
    { streamed: '{"a": ', rest: "hello", whole: { a: "hello" } },
    { streamed: '{"a": 1', rest: "", whole: { a: 1 } },
  ];
  for (const { streamed, rest, whole } of rows) {
    test(`${streamed}${rest} becomes ${JSON.stringify(whole)}`, () => {
      assert.deepEqual(JSON.parse(streamed + closeArguments(streamed, rest)), whole);
    });
  }

  test("makes JSON of any beginning of JSON, whatever else it is", () => {
    fc.assert(
      fc.property(fc.jsonValue(), fc.nat(), fc.string(), (value, cut, noise) => {
        const text = JSON.stringify(value);
        for (const rest of [text.slice(0, cut % (text.length + 1)), noise])
          JSON.parse(`{"a": ${closeArguments('{"a": ', rest)}`);
      }),
    );
  });
});
