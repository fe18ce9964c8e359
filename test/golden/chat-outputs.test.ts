/** Model outputs against what DeepSeek's own parser (deepseek-recipe 0.2.0) makes of them, for every way of cutting them. */
import assert from "node:assert/strict";
import { describe, test } from "node:test";
import { dsml, endOfThinking } from "../../src/chat/markers.ts";
import { type Delta, OutputParser, type ParsedMessage, type ParseOptions } from "../../src/chat/output-parser.ts";
import { deepseekTokenizer, readGzippedJson } from "./deepseek-tokenizer.ts";

interface OutputCase {
  readonly name: string;
  readonly version: "v4" | "v4.1";
  readonly options: {
    start: string;
    tool_calls: boolean;
    in_tool_calls: boolean;
    json: boolean;
    stop: string[];
    finish: "stop";
  };
  readonly markers: "special tokens" | "ordinary text";
  readonly text: string;
  readonly token_ids: number[];
  readonly expected: {
    reasoning: string;
    content: string;
    tool_calls: { name: string; arguments: string }[];
    finish: string;
  };
  readonly split_invariant: string;
  readonly arguments_free?: boolean;
  readonly arguments_not_json?: number[];
}

const { cases } = readGzippedJson("chat/outputs.json.gz") as { cases: OutputCase[] };

export function parseOptions(options: OutputCase["options"]): ParseOptions {
  return {
    start: options.start.replace("_continuation", "Continuation") as ParseOptions["start"],
    toolCalls: options.tool_calls,
    inToolCalls: options.in_tool_calls,
    json: options.json,
    stop: options.stop,
  };
}

/** A unit of output: text, or a marker that came as a token. */
type Unit = { text: string } | { marker: typeof dsml | typeof endOfThinking };

function run(output: OutputCase, units: readonly Unit[], mode: "tokens" | "text"): ParsedMessage {
  const parser = new OutputParser(parseOptions(output.options), (index) => `call_${index}`);
  const deltas: Delta[] = [];
  for (const unit of units) {
    if ("marker" in unit) deltas.push(...parser.pushMarker(unit.marker));
    else deltas.push(...(mode === "text" ? parser.pushText(unit.text) : parser.pushPlain(unit.text)));
  }
  const { deltas: last, message } = parser.end(output.options.finish);
  assertDeltas([...deltas, ...last], message);
  return message;
}

/** The deltas, one after another, are the message. */
function assertDeltas(deltas: readonly Delta[], message: ParsedMessage): void {
  const joined = (type: "reasoning" | "content") =>
    deltas.map((delta) => (delta.type === type ? delta.text : "")).join("");
  assert.equal(joined("reasoning"), message.reasoning);
  assert.equal(joined("content"), message.content);
  message.toolCalls.forEach((call, i) => {
    const text = deltas
      .map((delta) => (delta.type === "toolArguments" && delta.index === i ? delta.text : ""))
      .join("");
    assert.equal(text, call.arguments);
  });
  assert.equal(deltas.filter((delta) => delta.type === "toolCall").length, message.toolCalls.length);
}

function assertMessage(message: ParsedMessage, output: OutputCase, how: string): void {
  const { expected } = output;
  const trim = (text: string) => (output.split_invariant === "exact" ? text : text.replace(/^ +| +$/g, ""));
  assert.equal(message.reasoning, expected.reasoning, how);
  assert.equal(trim(message.content), trim(expected.content), how);
  assert.equal(message.finish, expected.finish, how);
  assert.deepEqual(
    message.toolCalls.map((call) => call.name),
    expected.tool_calls.map((call) => call.name),
    how,
  );
  message.toolCalls.forEach((call, i) => {
    const isCut = !message.complete && i === message.toolCalls.length - 1;
    if (!isCut) JSON.parse(call.arguments); // a complete call has valid arguments, whatever the model wrote
    if (!output.arguments_free) assert.equal(call.arguments, expected.tool_calls[i]!.arguments, how);
  });
}

/** The units of the recorded tokens: markers by id, everything else as decoded text. */
function tokenUnits(output: OutputCase): Unit[] {
  const tokenizer = deepseekTokenizer(output.version);
  const units: Unit[] = [];
  let decoder = tokenizer.createDecoder();
  for (const id of output.token_ids) {
    const marker = [dsml, endOfThinking].find((content) => tokenizer.tokenId(content) === id);
    if (marker === undefined) {
      units.push({ text: decoder.push(id) });
      continue;
    }
    units.push({ text: decoder.end() }, { marker: marker as typeof dsml });
    decoder = tokenizer.createDecoder();
  }
  return [...units, { text: decoder.end() }];
}

/** Text between markers as one unit each. */
function joinText(units: readonly Unit[]): Unit[] {
  const joined: Unit[] = [];
  for (const unit of units) {
    const last = joined.at(-1);
    if ("text" in unit && last !== undefined && "text" in last)
      joined[joined.length - 1] = { text: last.text + unit.text };
    else joined.push(unit);
  }
  return joined;
}

/** The units cut at the given places of their text. */
function cutUnits(units: readonly Unit[], places: ReadonlySet<number>): Unit[] {
  let at = 0;
  return units.flatMap((unit): Unit[] => {
    if ("marker" in unit) return [unit];
    const pieces: Unit[] = [];
    let piece = "";
    for (const char of unit.text) {
      for (const codeUnit of char.split("")) {
        if (places.has(at++)) {
          pieces.push({ text: piece });
          piece = "";
        }
        piece += codeUnit;
      }
    }
    return [...pieces, { text: piece }];
  });
}

function* randomCuts(length: number, count: number): Generator<Set<number>> {
  let state = 12345;
  const next = () => {
    state = (Math.imul(state, 1664525) + 1013904223) >>> 0;
    return state / 2 ** 32;
  };
  for (let i = 0; i < count; i++) {
    const share = next();
    yield new Set(Array.from({ length }, (_, at) => at).filter(() => next() < share));
  }
}

function* cuts(length: number): Generator<Set<number>> {
  for (let at = 0; at < length; at++) yield new Set([at]);
  yield* randomCuts(length, 200);
}

describe("parse model output", () => {
  for (const output of cases) {
    test(output.name, () => {
      const units = tokenUnits(output);
      assertMessage(run(output, units, "tokens"), output, "token by token");
      const whole = joinText(units);
      const textLength = whole.reduce((sum, unit) => sum + ("text" in unit ? unit.text.length : 0), 0);
      for (const places of cuts(textLength)) {
        assertMessage(run(output, cutUnits(whole, places), "tokens"), output, `tokens cut at ${[...places]}`);
      }
      if (output.markers === "ordinary text") return;
      for (const places of cuts(output.text.length)) {
        const pieces = cutUnits([{ text: output.text }], places);
        assertMessage(run(output, pieces, "text"), output, `text cut at ${[...places]}`);
      }
    });
  }
});
