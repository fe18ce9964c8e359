import assert from "node:assert/strict";
import { describe, test } from "node:test";
import fc from "fast-check";
import { OutputParser, type ParsedMessage, type ParseOptions } from "../../src/chat/output-parser.ts";

const pieces = fc.constantFrom(
  "</think>",
  "｜DSML｜",
  "<",
  "</",
  "\n",
  "\n\n",
  'invoke name="',
  ' invoke name="',
  'parameter name="',
  "tool_calls>",
  " calls>",
  '"',
  '">',
  'string="true">',
  'string="false">',
  'string="maybe">',
  ">",
  "{",
  "[",
  "}",
  "1",
  "```json\n",
  "```",
  "END",
  "EN",
  "a",
  "中",
  "🦀",
  "\\",
  '<｜DSML｜invoke name="f">',
  '<｜DSML｜parameter name="k" string="true">',
  "</｜DSML｜parameter>",
  "</｜DSML｜invoke>",
  "</｜DSML｜tool_calls>",
);
const soup = fc.array(pieces, { maxLength: 25 }).map((parts) => parts.join(""));
const options: fc.Arbitrary<ParseOptions> = fc.record({
  start: fc.constantFrom("reasoning", "content", "contentContinuation", "reasoningContinuation"),
  toolCalls: fc.boolean(),
  inToolCalls: fc.boolean(),
  json: fc.boolean(),
  stop: fc.constantFrom([], ["END"], ["\n\n", "a"]),
});

function run(text: string, parse: ParseOptions, cuts: readonly number[], finish: "stop" | "length"): ParsedMessage {
  const parser = new OutputParser(parse, (index) => `call_${index}`);
  const places = [...new Set([0, ...cuts.map((cut) => cut % (text.length + 1)), text.length])].sort((a, b) => a - b);
  for (let i = 0; i + 1 < places.length; i++) parser.pushText(text.slice(places[i], places[i + 1]));
  return parser.end(finish).message;
}

describe("output parser", () => {
  test("gives the same message however a soup of markers is cut, and never throws", () => {
    fc.assert(
      fc.property(
        soup,
        options,
        fc.array(fc.nat(), { maxLength: 12 }),
        fc.constantFrom("stop" as const, "length" as const),
        (text, parse, cuts, finish) => {
          const whole = run(text, parse, [], finish);
          assert.deepEqual(run(text, parse, cuts, finish), whole);
          assert.deepEqual(
            run(
              text,
              parse,
              Array.from({ length: text.length }, (_, i) => i),
              finish,
            ),
            whole,
          );
        },
      ),
      { numRuns: 3000, seed: 17 },
    );
  });

  test("the arguments of every call but a cut-off last one are a JSON object", () => {
    fc.assert(
      fc.property(soup, (text) => {
        const parse: ParseOptions = { start: "content", toolCalls: true, inToolCalls: true, json: false, stop: [] };
        const { toolCalls, complete } = run(text, parse, [], "stop");
        toolCalls.forEach((call, i) => {
          if (i === toolCalls.length - 1 && !complete) return;
          assert.equal(typeof JSON.parse(call.arguments), "object", call.arguments);
        });
      }),
      { numRuns: 2000, seed: 18 },
    );
  });

  test("attributes in another order, missing or unknown are understood", () => {
    const parse: ParseOptions = { start: "content", toolCalls: true, inToolCalls: true, json: false, stop: [] };
    const call = (tag: string, value: string) =>
      run(
        `<｜DSML｜invoke name="f">\n<｜DSML｜parameter ${tag}>${value}</｜DSML｜parameter>\n</｜DSML｜invoke>`,
        parse,
        [],
        "stop",
      ).toolCalls[0]!.arguments;
    assert.equal(call('name="a"', "1"), '{"a": 1}');
    assert.equal(call('name="a"', "one"), '{"a": "one"}');
    assert.equal(call('name="a" string="maybe"', "[1]"), '{"a": [1]}');
    assert.equal(call('string="true" name="a"', "1"), '{"a": "1"}');
    assert.equal(call('name="a" string="false"', "not json"), '{"a": "not json"}');
    assert.equal(call('name="a" string="false"', ""), '{"a": ""}');
  });

  test("a million newlines or brackets, one by one, take linear time and memory", () => {
    const parser = new OutputParser({
      start: "content",
      toolCalls: true,
      inToolCalls: false,
      json: false,
      stop: ["\n\n\nEND"],
    });
    parser.pushPlain("x");
    for (let i = 0; i < 200_000; i++) parser.pushPlain("\n");
    parser.pushPlain("y");
    const { message } = parser.end("stop");
    assert.equal(message.content.length, 200_002);
  });

  test("call ids sort by age", () => {
    const parse: ParseOptions = { start: "content", toolCalls: true, inToolCalls: true, json: false, stop: [] };
    const parser = new OutputParser(parse);
    parser.pushText('invoke name="a"></｜DSML｜invoke>invoke name="b"></｜DSML｜invoke>');
    const ids = parser.end("stop").message.toolCalls.map(({ id }) => id);
    assert.equal(ids.length, 2);
    assert.deepEqual(ids.toSorted(), ids);
    assert.notEqual(ids[0], ids[1]);
  });
});
