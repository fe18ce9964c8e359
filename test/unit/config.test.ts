import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { join } from "node:path";
import { describe, test } from "node:test";
import fc from "fast-check";
import { ModelError } from "../../src/errors.ts";
import { modelParameters } from "../../src/model/parameters.ts";
import { parseConfig } from "../../src/model/parse-config.ts";

const read = (path: string) => JSON.parse(readFileSync(join(import.meta.dirname, "../..", path), "utf8"));
const flash = read("test/data/configs/v4-flash.json");
const flash41 = read("test/data/configs/v4.1-flash.json");

describe("config.json", () => {
  test("of V4 Flash and Pro is read as published", () => {
    const config = parseConfig(flash);
    assert.equal(config.numLayers, 43);
    assert.deepEqual(config.compressRatios.slice(0, 5), [0, 0, 4, 128, 4]);
    assert.equal(config.compressRatios.length, 43);
    assert.ok(config.architecture === "deepseek-v4");
    assert.deepEqual(config.hashRouted.filter(Boolean).length, 3);
    assert.deepEqual(config.compressRope, {
      theta: 160_000,
      yarn: { factor: 16, betaFast: 32, betaSlow: 1, originalContext: 65_536 },
    });
    assert.deepEqual(config.rope, { theta: 10_000, yarn: undefined });
    const pro = parseConfig(read("test/data/configs/v4-pro.json"));
    assert.equal(pro.numExperts, 384);
    assert.equal(pro.compressRatios.filter((ratio) => ratio === 128).length, 31);
  });

  test("of V4 Flash describes a model of 284 billion parameters", () => {
    const total = modelParameters(parseConfig(flash))
      .filter(({ kind }) => kind !== "integers")
      .reduce((sum, { shape }) => sum + shape.reduce((product, dim) => product * dim, 1), 0);
    assert.ok(Math.abs(total / 284e9 - 1) < 0.01, `${total}`);
  });

  test("in transformers' spelling says the same as in the published one", () => {
    const seed = parseConfig(read("assets/seed-v4/config.json"));
    assert.deepEqual(seed.compressRatios, [0, 0, 4, 128, 4, 128]);
    assert.ok(seed.architecture === "deepseek-v4");
    assert.deepEqual(seed.hashRouted, [true, false, false, false, false, false]);
    assert.equal(seed.ropeHeadDim, 32);
    assert.equal(seed.compressRope.yarn, undefined);
    const {
      compress_ratios,
      num_hash_layers,
      qk_rope_head_dim,
      rope_scaling,
      rope_theta,
      compress_rope_theta,
      ...rest
    } = flash;
    const kinds: Record<string, string> = {
      0: "sliding_attention",
      4: "compressed_sparse_attention",
      128: "heavily_compressed_attention",
    };
    const other = parseConfig({
      ...rest,
      layer_types: compress_ratios.slice(0, 43).map((ratio: number) => kinds[ratio]),
      mlp_layer_types: Array.from({ length: 43 }, (_, l) => (l < num_hash_layers ? "hash_moe" : "moe")),
      partial_rotary_factor: qk_rope_head_dim / flash.head_dim,
      rope_parameters: {
        main: { rope_theta, rope_type: "default" },
        compress: { ...rope_scaling, rope_type: "yarn", rope_theta: compress_rope_theta },
      },
    });
    assert.deepEqual(other, parseConfig(flash));
  });

  test("of another architecture is refused by its name, with what is supported", () => {
    const isRefusal = (name: RegExp) => (error: unknown) =>
      error instanceof ModelError &&
      error.code === "unsupported-architecture" &&
      name.test(error.message) &&
      /V4/.test(error.hint!);
    assert.throws(() => parseConfig({ model_type: "llama", architectures: ["LlamaForCausalLM"] }), isRefusal(/llama/));
    assert.throws(() => parseConfig({}), isRefusal(/none is named/));
    assert.throws(() => parseConfig({ ...flash, vision_config: {} }), isRefusal(/vision/));
  });

  test("of V4.1 Flash is read as published", () => {
    const config = parseConfig(flash41);
    assert.ok(config.architecture === "deepseek-v4.1");
    assert.deepEqual([config.numLayers, config.compressRatios.length], [40, 40]);
    assert.deepEqual(config.entrySourceLayers, [2, 8, 14, 20]);
    assert.deepEqual(config.candidatePool, { sourceLayer: 20, topBlocks: 2048, blockSize: 8 });
    assert.deepEqual(config.engram?.tableRows, [384_006_168, 384_016_682]);
    assert.equal(config.imageTokenId, 129_264);
    assert.deepEqual(config.drafter?.featureLayers, [37, 38, 39]);
    assert.deepEqual([config.rmsNormEps, config.fp8BlockSize[0], config.rounding], [1e-20, 32, "caches"]);
  });

  const schedules: readonly { keys: Record<string, unknown>; problem: RegExp }[] = [
    { keys: { kv_source_layer_ids: [2, 8, 14, 21] }, problem: /layer 20 has ratio 1, its source below has 2/ },
    { keys: { index_source_layer_ids: [2, 8, 20] }, problem: /kv_source_layer_ids 14 are not in index_source/ },
    { keys: { kv_source_layer_ids: [2, 8, 14], compress_ratios: new Array(43).fill(2) }, problem: /its source below/ },
    { keys: { candidate_source_layer_id: 14 }, problem: /is not the last of kv_source/ },
    { keys: { kv_source_layer_ids: [1, 2, 8, 14, 20] }, problem: /the source layer 1 has ratio 0/ },
    { keys: { engram_num_embeddings: [384_006_167, 384_016_682] }, problem: /hashes need 384006168/ },
    { keys: { compress_ratios: [0, 0, 4] }, problem: /compress_ratios/ },
  ];
  for (const { keys, problem } of schedules) {
    test(`of V4.1 whose layers do not fit is refused: ${problem.source}`, () => {
      const wrong = { ...flash41, text_config: { ...flash41.text_config, ...keys } };
      assert.throws(
        () => parseConfig(wrong),
        (error) => error instanceof ModelError && problem.test(error.message),
      );
    });
  }

  test("with more residual streams than the kernels have room for is refused", () => {
    assert.equal(parseConfig({ ...flash, hc_mult: 16 }).hcMult, 16);
    assert.throws(() => parseConfig({ ...flash, hc_mult: 17 }), /hc_mult is 17/);
  });

  test("with several faults names all of them at once", () => {
    const wrong = {
      ...flash,
      hidden_size: -1,
      o_groups: 7,
      rope_scaling: { type: "linear" },
      compress_ratios: [0, 3],
      vocab_size: undefined,
    };
    assert.throws(
      () => parseConfig(wrong),
      (error) => {
        assert.ok(error instanceof ModelError && error.code === "bad-config");
        for (const part of [/hidden_size is -1/, /o_groups/, /linear/, /compress_ratios/, /vocab_size is missing/]) {
          assert.match(error.message, part);
        }
        return true;
      },
    );
  });

  test("of which a number is wrong by itself is not blamed for what it is to others", () => {
    for (const key of ["num_attention_heads", "o_groups", "qk_rope_head_dim", "head_dim", "n_routed_experts"]) {
      for (const value of [undefined, "4", -1, 0.5]) {
        assert.throws(
          () => parseConfig({ ...flash, [key]: value }),
          (error) => error instanceof ModelError && !error.message.includes(";") && error.message.includes(key),
          key,
        );
      }
    }
  });

  test("with any value in place of any key is read or refused with a ModelError", () => {
    const value = fc.oneof(fc.jsonValue(), fc.constantFrom(1e308, -1, 0, 0.5, 2 ** 53, "x", [], {}));
    fc.assert(
      fc.property(fc.constantFrom(...Object.keys(flash)), value, (key, replacement) => {
        try {
          parseConfig({ ...flash, [key]: replacement });
        } catch (error) {
          assert.ok(error instanceof ModelError, `${error}`);
        }
      }),
      { numRuns: 1000, seed: 2 },
    );
    fc.assert(
      fc.property(fc.constantFrom(...Object.keys(flash41.text_config)), value, (key, replacement) => {
        try {
          parseConfig({ ...flash41, text_config: { ...flash41.text_config, [key]: replacement } });
        } catch (error) {
          assert.ok(error instanceof ModelError, `${error}`);
        }
      }),
      { numRuns: 1000, seed: 3 },
    );
  });
});

describe("a config of values that cannot be", () => {
  const strange = [0, -1, 1, 1.5, 1e300, 2 ** 31, 2 ** 53, "x", null, true, [], [0], [1e300], {}, [[1], [2]]];

  for (const [name, config, text] of [
    ["V4", flash, flash],
    ["V4.1", flash41, flash41.text_config],
  ] as const) {
    test(`of ${name}, in any of its keys: a config, or one error that names the key`, () => {
      for (const key of new Set([...Object.keys(config), ...Object.keys(text)])) {
        for (const value of strange) {
          const changed = structuredClone(config);
          (key in changed ? changed : changed.text_config)[key] = value;
          try {
            const { rmsNormEps, hcEps, routedScalingFactor, swigluLimit, rope, compressRope } = parseConfig(changed);
            for (const n of [rmsNormEps, hcEps, routedScalingFactor, swigluLimit, rope.theta, compressRope.theta])
              assert.ok(Number.isFinite(Math.fround(n)), `${key} = ${JSON.stringify(value)} gives ${n}`);
          } catch (error) {
            assert.ok(error instanceof ModelError, `${key} = ${JSON.stringify(value)}: ${error}`);
            assert.ok(error.hint !== undefined);
          }
        }
      }
    });
  }

  for (const [key, value] of [
    ["rope_scaling", 0],
    ["rope_scaling", { factor: 16 }],
    ["quantization_config", "fp8"],
    ["hidden_act", "gelu"],
    ["topk_method", "group_limited_greedy"],
    ["attention_bias", true],
    ["compress_rope_theta", 1],
  ] as const) {
    test(`${key} ${JSON.stringify(value)} is refused: it would be computed as something else`, () => {
      assert.throws(
        () => parseConfig({ ...flash, [key]: value }),
        (error) => error instanceof ModelError && error.message.includes(key),
      );
    });
  }
});
