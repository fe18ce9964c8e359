import assert from "node:assert/strict";
import { describe, test } from "node:test";
import fc from "fast-check";
import { drawnLogprob } from "../../src/engine/batching/token-logprobs.ts";
import { uniform } from "../../src/engine/sampling/random.ts";
import { Sampler } from "../../src/engine/sampling/sampler.ts";
import { resolveSamplingOptions, type SamplingOptions } from "../../src/engine/sampling/sampling-options.ts";
import { TokenHistory } from "../../src/engine/sampling/token-history.ts";
import { RequestError } from "../../src/errors.ts";

const logitsArbitrary = fc
  .array(fc.float({ min: -20, max: 20, noNaN: true }), { minLength: 1, maxLength: 60 })
  .map((values) => Float32Array.from(values));

/** The tokens that may be drawn, by sorting everything: what the options mean, not how the sampler does it. */
function allowed(
  logits: Float32Array,
  { temperature = 1, topK = 0, topP = 1, minP = 0 }: SamplingOptions,
): Set<number> {
  const greatest = Math.max(...logits);
  let tokens = [...logits]
    .map((logit, id) => ({ id, weight: Math.exp((logit - greatest) / temperature) }))
    .sort((a, b) => logits[b.id]! - logits[a.id]! || a.id - b.id);
  if (topK > 0) tokens = tokens.slice(0, topK);
  tokens = tokens.filter(({ weight }) => weight >= minP * (1 - 1e-9));
  const needed = topP * tokens.reduce((sum, { weight }) => sum + weight, 0) * (1 + 1e-9);
  let sum = 0;
  const kept = tokens.filter(({ weight }, i) => {
    const isIn = i === 0 || topP >= 1 || sum < needed;
    sum += weight;
    return isIn;
  });
  return new Set(kept.map(({ id }) => id));
}

const cuts = fc.record({
  temperature: fc.constantFrom(0.3, 1, 2),
  topK: fc.constantFrom(0, 1, 3, 10, 100),
  topP: fc.constantFrom(0, 0.3, 0.9, 1),
  minP: fc.constantFrom(0, 0.05, 0.5),
});

describe("sampler", () => {
  test("draws only tokens that top-k, min-p and top-p allow", () => {
    fc.assert(
      fc.property(logitsArbitrary, cuts, fc.integer(), (logits, options, seed) => {
        const sampler = new Sampler({ ...options, seed });
        const may = allowed(logits, options);
        const history = new TokenHistory([]);
        for (let i = 0; i < 5; i++) {
          const id = sampler.sample(logits, history);
          assert.ok(may.has(id), `${id} is not among ${[...may]}`);
          history.push(id);
        }
      }),
      { numRuns: 500, seed: 1 },
    );
  });

  test("tells what it draws from: the allowed tokens, as probable as they are drawn", () => {
    fc.assert(
      fc.property(logitsArbitrary, cuts, fc.integer(), (logits, options, seed) => {
        const sampler = new Sampler({ ...options, seed });
        const history = new TokenHistory([]);
        const candidates = sampler.candidates(logits, history);
        const may = allowed(logits, options);
        for (const one of candidates.ids) assert.ok(may.has(one), `${one} is not among ${[...may]}`);
        const id = sampler.sample(logits, history);
        const { logprob, top } = drawnLogprob(candidates, id, candidates.ids.length);
        const sum = top.reduce((all, one) => all + Math.exp(one.logprob), 0);
        assert.ok(Math.abs(sum - 1) < 1e-9, `${sum}`);
        assert.equal(top.find((one) => one.id === id)!.logprob, logprob);
        const { temperature } = options;
        for (const [i, one] of top.slice(1).entries()) {
          const ratio = (logits[one.id]! - logits[top[i]!.id]!) / temperature;
          assert.ok(Math.abs(one.logprob - top[i]!.logprob - ratio) < 1e-6 && ratio < 1e-9);
        }
        assert.deepEqual(drawnLogprob(candidates, id, 2).top, top.slice(0, 2));
      }),
      { numRuns: 300, seed: 2 },
    );
    const greedy = new Sampler({ temperature: 0 });
    assert.deepEqual(greedy.candidates(Float32Array.of(1, 5, 5, 2), new TokenHistory([])), { ids: [1], weights: [1] });
  });

  test("temperature 0 takes the greatest, of equal ones the lowest id", () => {
    const sampler = new Sampler({ temperature: 0, topK: 5, topP: 0.1 });
    assert.equal(sampler.sample(Float32Array.of(1, 3, 3, -Infinity), new TokenHistory([])), 1);
  });

  test("draws as often as the distribution says", () => {
    const logits = Float32Array.of(Math.log(0.5), Math.log(0.3), Math.log(0.15), Math.log(0.05));
    const sampler = new Sampler({ seed: 42 });
    const history = new TokenHistory([]);
    const counts = [0, 0, 0, 0];
    for (let i = 0; i < 20_000; i++) {
      const id = sampler.sample(logits, history);
      counts[id]!++;
      history.push(id);
    }
    const chiSquare = counts.reduce((sum, count, id) => {
      const expected = 20_000 * Math.exp(logits[id]!);
      return sum + (count - expected) ** 2 / expected;
    }, 0);
    assert.ok(chiSquare < 16.3, `chi-square ${chiSquare} over 3 degrees of freedom (p = 0.001)`);
  });

  test("the same seed gives the same tokens, whatever other requests do; another seed gives others", () => {
    const logits = Float32Array.from({ length: 50 }, (_, i) => Math.sin(i));
    const run = (seed: number, disturb: boolean) => {
      const sampler = new Sampler({ seed });
      const other = new Sampler({ seed: 99 });
      const history = new TokenHistory([1, 2]);
      const noise = new TokenHistory([]);
      return Array.from({ length: 30 }, () => {
        if (disturb) noise.push(other.sample(logits, noise));
        const id = sampler.sample(logits, history);
        history.push(id);
        return id;
      });
    };
    assert.deepEqual(run(7, true), run(7, false));
    assert.notDeepEqual(run(7, false), run(8, false));
  });

  test("a request without a seed reports the one it used", () => {
    const logits = Float32Array.from({ length: 50 }, () => 0);
    const first = new Sampler();
    const again = new Sampler({ seed: first.seed });
    assert.equal(first.sample(logits, new TokenHistory([])), again.sample(logits, new TokenHistory([])));
  });

  test("penalties and bias change the logits as they are defined", () => {
    const history = new TokenHistory([0, 1]);
    for (const id of [2, 2, 3]) history.push(id);
    const greedy = (options: SamplingOptions, logits: number[]) =>
      new Sampler({ temperature: 0, ...options }).sample(Float32Array.from(logits), history);
    assert.equal(greedy({ repetitionPenalty: 2 }, [4, -1, 1, 1, 2.1]), 4); // 4/2, -1*2, 1/2, 1/2 against 2.1
    assert.equal(greedy({ repetitionPenalty: 2 }, [4, -1, 1, 1, 1.9]), 0);
    assert.equal(greedy({ frequencyPenalty: 0.5 }, [0, 0, 3, 2.4, 2.2]), 4); // 3 - 2*0.5, 2.4 - 0.5
    assert.equal(greedy({ presencePenalty: 0.5 }, [0, 0, 3, 2.4, 2.2]), 2); // 3 - 0.5 whatever the count
    assert.equal(greedy({ logitBias: { 4: 100 } }, [5, 5, 5, 5, -90]), 4);
    assert.equal(greedy({ logitBias: { 0: -100, 999: 5 } }, [50, 1, 0, 0, 0]), 1);
  });

  test("logits without a number to choose are an error, never token 0", () => {
    for (const logits of [[Number.NaN, Number.NaN], [-Infinity], [Number.POSITIVE_INFINITY, 1]]) {
      for (const temperature of [0, 1]) {
        const sampler = new Sampler({ temperature });
        assert.throws(() => sampler.sample(Float32Array.from(logits), new TokenHistory([])), RequestError);
      }
    }
    // A NaN among numbers is never chosen.
    assert.equal(
      new Sampler({ topK: 2, seed: 1 }).sample(Float32Array.of(Number.NaN, 1, Number.NaN), new TokenHistory([])),
      1,
    );
  });

  test("the logits that are given stay as they are", () => {
    const logits = Float32Array.of(1, 2, 3);
    new Sampler({ repetitionPenalty: 2, topK: 2, topP: 0.5 }).sample(logits, new TokenHistory([0, 1, 2]));
    assert.deepEqual([...logits], [1, 2, 3]);
  });
});

describe("sampling options", () => {
  const wrong: SamplingOptions[] = [
    { temperature: -1 },
    { temperature: Number.NaN },
    { temperature: Number.POSITIVE_INFINITY },
    { topK: 1.5 },
    { topK: -1 },
    { topP: 1.01 },
    { minP: -0.1 },
    { repetitionPenalty: 0 },
    { frequencyPenalty: Number.NaN },
    { presencePenalty: 1e9 },
    { logitBias: { 3: 101 } },
    { logitBias: { [-1]: 1 } },
    { seed: 1.5 },
  ];
  for (const options of wrong) {
    test(`${JSON.stringify(options)} is refused by name`, () => {
      assert.throws(
        () => resolveSamplingOptions(options),
        (error) => error instanceof RequestError && error.message.includes(Object.keys(options)[0]!),
      );
    });
  }
});

describe("token history", () => {
  test("winding back gives the counts of a fresh history", () => {
    fc.assert(
      fc.property(fc.array(fc.nat(5), { maxLength: 30 }), fc.nat(30), (ids, count) => {
        const wound = new TokenHistory([]);
        for (const id of ids) wound.push(id);
        wound.rewind(count);
        const fresh = new TokenHistory([]);
        for (const id of ids.slice(0, Math.max(0, ids.length - count))) fresh.push(id);
        assert.deepEqual([...wound.counts].sort(), [...fresh.counts].sort());
        assert.equal(wound.length, fresh.length);
      }),
    );
  });
});

describe("random numbers", () => {
  test("are those of splitmix64", () => {
    // First outputs of the published algorithm for seed 1234567, upper 53 bits.
    const outputs = [6457827717110365317n, 3203168211198807973n, 9817491932198370423n];
    outputs.forEach((output, i) => {
      assert.equal(uniform(1234567, i), Number(output >> 11n) / 2 ** 53);
    });
  });
  test("lie in [0, 1) for any seed", () => {
    fc.assert(
      fc.property(fc.maxSafeInteger(), fc.nat(), (seed, index) => {
        const x = uniform(seed, index);
        assert.ok(x >= 0 && x < 1);
      }),
    );
  });
});
