/** The parts of image input that stand alone: config, patches, the error function, orientation, rounding. */
import assert from "node:assert/strict";
import { describe, test } from "node:test";
import fc from "fast-check";
import { ModelError } from "../../src/errors.ts";
import { exifOrientation, type Orientation, oriented } from "../../src/media/exif-orientation.ts";
import { roundHalfEven } from "../../src/media/fit-image.ts";
import { resizeBicubic } from "../../src/media/resize-bicubic.ts";
import { parseVisionConfig } from "../../src/model/vision/config.ts";
import { visionParameters } from "../../src/model/vision/image-encoder.ts";
import { imageInputs } from "../../src/model/vision/image-inputs.ts";
import { planImage, releasedImagePlan } from "../../src/model/vision/image-plan.ts";
import { erf } from "../../src/tensor/ops/gelu.ts";
import { countElements } from "../../src/tensor/shape.ts";

/** As published. */
const released = {
  image_token_id: 129_264,
  text_config: { hidden_size: 5120 },
  vision_config: {
    num_hidden_layers: 32,
    hidden_size: 1024,
    num_attention_heads: 16,
    intermediate_size: 2816,
    patch_size: 14,
    rope_theta: 10_000,
    downsample_ratio: 3,
    max_image_tokens: 1024,
    min_pixels: 295_936,
    max_wh_ratio: null,
  },
};

describe("the vision part of a config", () => {
  test("is read as it was published", () => {
    const config = parseVisionConfig(released)!;
    assert.deepEqual(
      { ...releasedImagePlan },
      {
        patchSize: config.patchSize,
        downsampleRatio: config.downsampleRatio,
        maxImageTokens: config.maxImageTokens,
        minPixels: config.minPixels,
        maxAspectRatio: config.maxAspectRatio,
      },
    );
    assert.equal(config.textHiddenSize, 5120);
    assert.equal(config.imageTokenId, 129_264);
  });
  test("may be absent", () => {
    for (const json of [{}, { vision_config: null }, null, 3]) assert.equal(parseVisionConfig(json), undefined);
  });
  test("that makes no sense is refused with every problem", () => {
    const wrong = {
      ...released,
      image_token_id: -1,
      vision_config: { ...released.vision_config, patch_size: 0, rope_theta: "x" },
    };
    assert.throws(
      () => parseVisionConfig(wrong, "a/config.json"),
      (error) => {
        assert.ok(error instanceof ModelError);
        assert.match(error.message, /patch_size is 0.*rope_theta is "x".*image_token_id is -1/);
        assert.equal(error.where, "a/config.json");
        return true;
      },
    );
  });
  test("with heads that do not fit is refused", () => {
    const heads = (num_attention_heads: number) => ({
      ...released,
      vision_config: { ...released.vision_config, num_attention_heads },
    });
    assert.throws(() => parseVisionConfig(heads(3)), /not a multiple of num_attention_heads/);
    assert.throws(() => parseVisionConfig(heads(512)), /multiple of 4/);
  });
  test("of any JSON is read or refused with a ModelError", () => {
    fc.assert(
      fc.property(fc.dictionary(fc.constantFrom(...Object.keys(released.vision_config)), fc.jsonValue()), (vision) => {
        try {
          parseVisionConfig({ ...released, vision_config: { ...released.vision_config, ...vision } });
        } catch (error) {
          assert.ok(error instanceof ModelError, String(error));
        }
      }),
    );
  });
  test("as published has 485 M parameters, by the official names", () => {
    const parameters = visionParameters(parseVisionConfig(released)!);
    const total = parameters.reduce((sum, { shape }) => sum + countElements(shape), 0);
    assert.equal(Math.round(total / 1e6), 485);
    assert.equal(new Set(parameters.map(({ name }) => name)).size, 2 + 32 * 8 + 1 + 4 + 3);
    assert.ok(parameters.some(({ name }) => name === "vision.blocks.31.attn.wqkv.bias"));
  });
});

describe("image plans", () => {
  const sides = fc.integer({ min: 1, max: 6000 });
  test("never take more tokens than the model allows, and consist of whole patches", () => {
    fc.assert(
      fc.property(sides, sides, (width, height) => {
        const plan = planImage(width, height, releasedImagePlan);
        assert.ok(plan.tokens <= 1024, `${plan.tokens} tokens`);
        assert.equal(plan.tokens, plan.rows * (plan.columns + 1) + 2);
        assert.deepEqual([plan.width, plan.height], [14 * plan.patchColumns, 14 * plan.patchRows]);
      }),
    );
  });
  test("lead to tables in which every patch is in one cell and every cell in one line", () => {
    const config = { ...parseVisionConfig(released)!, patchSize: 1, minPixels: 1 };
    fc.assert(
      fc.property(fc.integer({ min: 1, max: 40 }), fc.integer({ min: 1, max: 40 }), (width, height) => {
        const plan = planImage(width, height, config);
        const { sizes, inputs } = imageInputs(config, plan, new Uint8Array(3 * width * height));
        const patches = [...inputs.members].filter((member) => member >= 0).sort((a, b) => a - b);
        assert.deepEqual(patches, [...Array(sizes.tokens).keys()]);
        assert.deepEqual(
          [...inputs.layout].filter((entry) => entry >= 0),
          [...Array(sizes.cells).keys()],
        );
        assert.equal(inputs.layout.length, plan.tokens);
      }),
    );
  });
});

describe("the error function", () => {
  // Python's math.erf
  const rows: readonly (readonly [number, number])[] = [
    [0, 0],
    [1e-8, 1.1283791670955125e-8],
    [0.5, 0.5204998778130465],
    [1, 0.8427007929497149],
    [-2, -0.9953222650189527],
    [3.5, 0.9999992569016276],
    [7, 1],
    [-40, -1],
  ];
  for (const [x, expected] of rows) {
    test(`of ${x}`, () =>
      assert.ok(Math.abs(erf(x) - expected) <= 2e-15 * Math.max(1, Math.abs(expected)), `${erf(x)}`));
  }
});

describe("orientation", () => {
  const picture = { width: 3, height: 2, data: Uint8Array.from({ length: 18 }, (_, i) => Math.floor(i / 3)) };
  /** Numbers of the pixels of  0 1 2 / 3 4 5  as they are shown. */
  const rows: readonly (readonly [Orientation, readonly number[]])[] = [
    [1, [0, 1, 2, 3, 4, 5]],
    [2, [2, 1, 0, 5, 4, 3]],
    [3, [5, 4, 3, 2, 1, 0]],
    [4, [3, 4, 5, 0, 1, 2]],
    [5, [0, 3, 1, 4, 2, 5]],
    [6, [3, 0, 4, 1, 5, 2]],
    [7, [5, 2, 4, 1, 3, 0]],
    [8, [2, 5, 1, 4, 0, 3]],
  ];
  for (const [orientation, shown] of rows) {
    test(`${orientation}`, () => {
      const { width, height, data } = oriented(picture, orientation);
      assert.deepEqual([width, height], orientation < 5 ? [3, 2] : [2, 3]);
      assert.deepEqual(
        [...data].filter((_, i) => i % 3 === 0),
        shown,
      );
    });
  }
  test("of any bytes is one of eight", () => {
    fc.assert(
      fc.property(
        fc.constantFrom("II*\0", "MM\0*", "Exif\0\0II*\0", ""),
        fc.uint8Array({ maxLength: 60 }),
        (start, rest) => {
          const value = exifOrientation(Uint8Array.from([...Buffer.from(start, "latin1"), ...rest]));
          assert.ok(value >= 1 && value <= 8);
        },
      ),
    );
  });
});

test("rounding to even is Python's", () => {
  for (const [x, expected] of [
    [0.5, 0],
    [1.5, 2],
    [2.5, 2],
    [2.51, 3],
    [7, 7],
    [-0.51, -1],
  ] as const)
    assert.equal(roundHalfEven(x), expected);
});

test("a picture of one colour keeps it at any size", () => {
  const side = fc.integer({ min: 1, max: 40 });
  fc.assert(
    fc.property(side, side, side, side, fc.nat(255), (w, h, toWidth, toHeight, level) => {
      const image = { width: w, height: h, data: new Uint8Array(3 * w * h).fill(level) };
      const resized = resizeBicubic(image, toWidth, toHeight);
      assert.deepEqual(resized, {
        width: toWidth,
        height: toHeight,
        data: new Uint8Array(3 * toWidth * toHeight).fill(level),
      });
    }),
  );
});
