import assert from "node:assert/strict";
import { describe, test } from "node:test";
import fc from "fast-check";
import { StopStrings } from "../../src/chat/stop-strings.ts";
import { RequestError } from "../../src/errors.ts";

/** What stop strings mean, on the whole text: the one that is complete first ends it; of several at one place the first listed. */
function oracle(text: string, stops: readonly string[]): { text: string; stopped: string | undefined } {
  for (let end = 1; end <= text.length; end++) {
    const stop = stops.find((candidate) => text.slice(0, end).endsWith(candidate));
    if (stop !== undefined) return { text: text.slice(0, end - stop.length), stopped: stop };
  }
  return { text, stopped: undefined };
}

function run(pieces: readonly string[], stops: readonly string[]) {
  const matcher = new StopStrings(stops);
  let text = "";
  let stopped: string | undefined;
  for (const piece of pieces) {
    const result = matcher.push(piece);
    text += result.text;
    stopped ??= result.stopped;
  }
  return { text: text + matcher.flush(), stopped };
}

const alphabet = fc.constantFrom("a", "b", "ab", "\n", "中", "🦀");
const textArbitrary = fc.array(alphabet, { maxLength: 14 }).map((parts) => parts.join(""));
const stopsArbitrary = fc.array(
  fc.array(alphabet, { minLength: 1, maxLength: 4 }).map((parts) => parts.join("")),
  { maxLength: 4 },
);

describe("stop strings", () => {
  test("give what the whole text gives, for every cut into two and for single characters", () => {
    fc.assert(
      fc.property(textArbitrary, stopsArbitrary, (text, stops) => {
        const expected = oracle(text, stops);
        assert.deepEqual(run(text.split(""), stops), expected);
        for (let at = 0; at <= text.length; at++) {
          assert.deepEqual(run([text.slice(0, at), text.slice(at)], stops), expected);
        }
      }),
      { numRuns: 1000, seed: 3 },
    );
  });

  test("never let out a part of a stop string, and hold back no more than may become one", () => {
    fc.assert(
      fc.property(textArbitrary, stopsArbitrary, (text, stops) => {
        const matcher = new StopStrings(stops);
        let out = "";
        for (let i = 0; i < text.length; i++) {
          const result = matcher.push(text[i]!);
          out += result.text;
          if (result.stopped !== undefined) return;
          const seen = text.slice(0, i + 1);
          const held = seen.slice(out.length);
          assert.equal(out + held, seen);
          const longest = Math.max(
            0,
            ...stops.flatMap((stop) =>
              Array.from({ length: Math.min(stop.length - 1, seen.length) }, (_, k) => k + 1).filter((k) =>
                seen.endsWith(stop.slice(0, k)),
              ),
            ),
          );
          assert.equal(held.length, longest);
        }
      }),
      { numRuns: 1000, seed: 4 },
    );
  });

  test("a stop string that restarts within itself is found", () => {
    assert.deepEqual(run(["abcEN", "ENDx"], ["END"]), { text: "abcEN", stopped: "END" });
  });

  test("a million characters of a nearly matching text are no trouble", () => {
    const stop = `${"a".repeat(1000)}b`;
    assert.deepEqual(run(["a".repeat(1_000_000)], [stop]).stopped, undefined);
  });

  for (const stops of [[""], new Array(129).fill("x"), ["x".repeat(5000)]]) {
    test(`${stops.length} stop strings of ${stops[0].length} characters are refused`, () => {
      assert.throws(() => new StopStrings(stops), RequestError);
    });
  }
});
