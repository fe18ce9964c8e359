import assert from "node:assert/strict";
import { describe, test } from "node:test";
import fc from "fast-check";
import { DraftCosts } from "../../src/engine/drafting/draft-costs.ts";
import { DraftLength } from "../../src/engine/drafting/draft-length.ts";
import { NgramDraft } from "../../src/engine/drafting/ngram-draft.ts";

describe("n-gram drafting", () => {
  const rows = [
    { because: "the newest place wins", text: [1, 2, 3, 7, 1, 2, 3, 8, 1, 2, 3], draft: [8, 1] },
    { because: "the longest agreement wins", text: [5, 1, 2, 3, 7, 6, 1, 2, 3, 8, 5, 1, 2, 3], draft: [7, 6] },
    { because: "a short period goes on beyond the end", text: [9, 4, 5, 4, 5, 4, 5], draft: [4, 5] },
    { because: "two tokens are too few to agree", text: [1, 2, 7, 1, 2], draft: [] },
    { because: "nothing repeats", text: [1, 2, 3, 4, 5], draft: [] },
    { because: "there is nothing", text: [], draft: [] },
  ];
  for (const { because, text, draft } of rows)
    test(`after ${text.join(" ") || "no token"} it proposes ${draft.join(" ") || "nothing"}: ${because}`, () =>
      assert.deepEqual(new NgramDraft(text).propose(2), draft));

  test("a draft is what followed a place where at least three tokens agree", () => {
    const texts = fc.array(fc.nat(3), { maxLength: 60 });
    const property = fc.property(texts, fc.integer({ min: 1, max: 6 }), (text, count) => {
      const draft = new NgramDraft(text).propose(count);
      const whole = [...text, ...draft];
      const end = text.length;
      const places = Array.from({ length: Math.max(0, end - 3) }, (_, i) => i + 3);
      const follows = (place: number) =>
        [1, 2, 3].every((back) => text[place - back] === text[end - back]) &&
        draft.every((id, i) => id === whole[place + i]);
      assert.equal(
        draft.length === 0,
        !places.some((place) => [1, 2, 3].every((b) => text[place - b] === text[end - b])),
      );
      if (draft.length > 0) assert.ok(draft.length === count && places.some(follows));
    });
    fc.assert(property, { numRuns: 1000 });
  });

  test("tokens that come later are found as if they had been there from the start", () => {
    const property = fc.property(fc.array(fc.nat(2), { maxLength: 50 }), (text) => {
      const grown: number[] = [];
      const draft = new NgramDraft(grown);
      for (const id of text) {
        grown.push(id);
        assert.deepEqual(draft.propose(3), new NgramDraft(grown.slice()).propose(3));
      }
    });
    fc.assert(property);
  });

  test("a long prompt is taken in piece by piece, and found when it is", () => {
    const text = Array.from({ length: 40_000 }, (_, i) => (i % 20_000) + 5);
    const draft = new NgramDraft(text);
    assert.deepEqual([draft.propose(1), draft.propose(1)], [[], []]);
    assert.deepEqual(draft.propose(1), [5]);
  });
});

describe("the length of drafts", () => {
  test("doubles while drafts are right, up to the most", () => {
    const length = new DraftLength(8);
    const lengths = Array.from({ length: 4 }, () => {
      const next = length.next();
      length.verified(next, next);
      return next;
    });
    assert.deepEqual(lengths, [3, 6, 8, 8]);
  });

  test("what cannot be guessed costs less than one drafted token in 25", () => {
    const length = new DraftLength(8);
    let drafted = 0;
    for (let step = 0; step < 2000; step++) {
      const next = length.next();
      drafted += next;
      length.verified(next, 0);
    }
    assert.ok(drafted < 80, `${drafted} tokens in 2,000 steps`);
  });

  test("one right token ends the pauses", () => {
    const length = new DraftLength(8);
    for (let i = 0; i < 200; i++) length.verified(length.next(), 0);
    while (length.next() === 0);
    length.verified(1, 1);
    assert.equal(length.next(), 2);
  });
});

/** Costs of steps of a + b n milliseconds, and of drafts. */
function costsOf(parts: { base: number; each: number; draft?: number; isChained?: boolean }): DraftCosts {
  const costs = new DraftCosts(parts.isChained ?? true);
  for (let i = 0; i < 40; i++) costs.step(1 + (i % 5), parts.base + parts.each * (1 + (i % 5)));
  for (let i = 0; i < 40; i++) costs.draft(parts.isChained === false ? 3 : 1, parts.draft ?? 0);
  return costs;
}

describe("what drafts cost", () => {
  const rows = [
    { because: "a token more costs next to nothing", base: 10, each: 0.1, acceptance: 0.9, best: 4 },
    { because: "they are seldom right", base: 10, each: 3, acceptance: 0.2, best: 0 },
    { because: "a token more costs as much as a step", base: 0, each: 10, acceptance: 0.9, best: 0 },
    { because: "the first is worth it, the others are not", base: 10, each: 4, acceptance: 0.5, best: 1 },
    { because: "drafting takes as long as a step", base: 10, each: 0.1, draft: 12, acceptance: 0.9, best: 0 },
    { because: "a block costs once", base: 10, each: 0.1, draft: 8, isChained: false, acceptance: 0.9, best: 4 },
  ];
  for (const { because, acceptance, best, ...parts } of rows)
    test(`drafts of ${best} are best when ${because}`, () => {
      assert.equal(costsOf(parts).best(acceptance, 4, 1), best);
    });

  test("sequences that share a step leave less to gain", () => {
    const costs = costsOf({ base: 10, each: 1 });
    const lengths = [1, 4, 16, 64].map((sequences) => costs.best(0.7, 4, sequences));
    assert.deepEqual(
      lengths,
      lengths.toSorted((a, b) => b - a),
    );
    assert.ok(lengths[0]! > 1 && lengths.at(-1) === 0, lengths.join());
  });

  test("while nothing is known drafts are tried, and prompts teach nothing", () => {
    const costs = new DraftCosts(true);
    assert.equal(costs.best(0.1, 4, 1), 4);
    for (let i = 0; i < 40; i++) costs.step(500 + i, 1000);
    assert.equal(costs.best(0.1, 4, 1), 4);
    for (let i = 0; i < 40; i++) costs.step(1, 10); // one token says nothing of two
    assert.equal(costs.best(0.1, 4, 1), 4);
  });

  test("drafts that do not pay cost less than one token in 50, and come back when they do", () => {
    let worth = 0;
    const length = new DraftLength(4, { best: () => worth });
    let drafted = 0;
    for (let step = 0; step < 2000; step++) {
      const next = length.next();
      drafted += next;
      length.verified(next, next);
    }
    assert.ok(drafted > 5 && drafted < 40, `${drafted} tokens in 2,000 steps`);
    worth = 4;
    let steps = 0;
    while (length.next() < 4) assert.ok(steps++ < 130, "they did not come back");
  });

  test("a new answer expects what earlier ones had", () => {
    const asked: number[] = [];
    const best = (acceptance: number, most: number) => {
      asked.push(acceptance);
      return most;
    };
    new DraftLength(4, { best }, 0.25).next();
    const length = new DraftLength(4, { best });
    for (let i = 0; i < 30; i++) length.verified(2, 1);
    length.next();
    assert.equal(asked[0], 0.25);
    assert.ok(Math.abs(asked[1]! - 0.5) < 0.02, `${asked[1]}`);
  });
});
