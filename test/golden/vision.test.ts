/**
 * The vision part of a tiny DeepSeek-V4.1 model (test/data/v4.1/f-vision) against values recorded from NVIDIA NeMo AutoModel
 * (torch, float32): sizes, pixels, every stage of the tower, and the rows that go into the text.
 */
import assert from "node:assert/strict";
import { createHash } from "node:crypto";
import { readFileSync } from "node:fs";
import { join } from "node:path";
import { after, describe, test } from "node:test";
import type { Device } from "../../src/device/device.ts";
import { ReferenceDevice } from "../../src/device/reference/reference-device.ts";
import { folderFiles } from "../../src/engine/checkpoint-folder.ts";
import { giveParameter } from "../../src/engine/give-parameter.ts";
import { ProcessDevice } from "../../src/engine/process-device.ts";
import { contentIds, imageName, imageSpans, vocabularyId } from "../../src/engine/vision/content-ids.ts";
import { ImageEncoder, type PreparedImage } from "../../src/engine/vision/image-encoder.ts";
import { placeImages } from "../../src/engine/vision/place-images.ts";
import { openVisionCheckpoint } from "../../src/engine/vision/vision-checkpoint.ts";
import { fitImage } from "../../src/media/fit-image.ts";
import { recordImageEncoder } from "../../src/model/vision/image-encoder.ts";
import { imageInputs, imageMarks, patchesOf } from "../../src/model/vision/image-inputs.ts";
import { type ImagePlan, planImage, releasedImagePlan } from "../../src/model/vision/image-plan.ts";
import { bestBody, kernelBodiesHere } from "../kernel-devices.ts";

interface Golden {
  readonly images: readonly {
    readonly start: number;
    readonly grid_hw: readonly [number, number];
    readonly types: readonly number[];
  }[];
  readonly plans_released: readonly Record<string, number>[];
  readonly preprocess: Record<string, number>;
}

const tolerance = 2e-5; // float32 with other orders of sums

const folder = join(import.meta.dirname, "../data/v4.1/f-vision");
const golden = JSON.parse(readFileSync(join(folder, "golden.json"), "utf8")) as Golden;
const tensors = readTensors(join(folder, "golden.safetensors"));
const stored = (name: string) => tensors.get(name)!.data;
const checkpoint = (await openVisionCheckpoint(await folderFiles(folder)))!;
const { config } = checkpoint;
after(() => checkpoint.close());

async function withWeights<D extends Device>(device: D): Promise<D> {
  for (const parameter of checkpoint.parameters) await giveParameter(checkpoint, parameter, device);
  return device;
}

/** The plan of an image that has this many patches. */
function planOfGrid([patchRows, patchColumns]: readonly [number, number]): ImagePlan {
  const { patchSize, downsampleRatio } = config;
  const [rows, columns] = [Math.ceil(patchRows / downsampleRatio), Math.ceil(patchColumns / downsampleRatio)];
  const size = { width: patchColumns * patchSize, height: patchRows * patchSize, mode: "pad" as const };
  return { ...size, patchRows, patchColumns, rows, columns, tokens: rows * (columns + 1) + 2 };
}

/** Recorded patches of image `i`; the images stand one behind another. */
function recordedPatches(i: number): Float32Array {
  const patches = golden.images.map(({ grid_hw: [h, w] }) => h * w * 3 * config.patchSize ** 2);
  const start = patches.slice(0, i).reduce((a, b) => a + b, 0);
  return stored("pixel_values").subarray(start, start + patches[i]!) as Float32Array;
}

describe("sizes", () => {
  for (const { width, height, ...expected } of golden.plans_released) {
    test(`${width} x ${height}`, () => {
      const plan = planImage(width!, height!, releasedImagePlan);
      const { resized_width, resized_height, llm_rows, llm_cols } = expected;
      assert.deepEqual(
        [plan.width, plan.height, plan.rows, plan.columns],
        [resized_width, resized_height, llm_rows, llm_cols],
      );
    });
  }
  test("a bound on the proportions stretches wide images and no others", () => {
    const options = { ...releasedImagePlan, maxAspectRatio: 8 };
    const wide = planImage(4000, 100, options);
    assert.deepEqual([wide.mode, wide.width, wide.height], ["stretch", 1540, 196]);
    assert.equal(planImage(100, 4000, options).mode, "pad");
    assert.deepEqual(planImage(640, 480, options), planImage(640, 480, releasedImagePlan));
  });
});

test("pixels are fitted and cut into patches as the reference does", () => {
  const [height, width] = tensors.get("preprocess.rgb")!.shape as [number, number];
  const plan = planImage(width, height, config);
  const { vit_rows, vit_cols, llm_rows, llm_cols } = golden.preprocess;
  assert.deepEqual(
    [plan.patchRows, plan.patchColumns, plan.rows, plan.columns],
    [vit_rows, vit_cols, llm_rows, llm_cols],
  );
  const fitted = fitImage({ width, height, data: stored("preprocess.rgb") as Uint8Array }, plan);
  assertClose(patchesOf(plan, config.patchSize, fitted.data), stored("preprocess.patches"), "patches", 1e-7);
});

test("placeholders become as many tokens as the recorded prompt has for each image", () => {
  const recorded = [...stored("input_ids")];
  const images = golden.images.map(({ start, types }, i) => ({
    start,
    end: start + types.length,
    tokenIds: contentIds(createHash("sha256").update(`image ${i}`).digest("hex"), types.length),
  }));
  const short = recorded.filter((id, i) => id !== config.imageTokenId || images.some(({ start }) => start === i));
  assert.equal(short.length, recorded.length - images.reduce((sum, { tokenIds }) => sum + tokenIds.length - 1, 0));
  const tokenIds = placeImages(short, config.imageTokenId, images);
  const ids = tokenIds.map((id) => vocabularyId(id, config.imageTokenId));
  assert.deepEqual(ids, recorded);
  assert.deepEqual(
    imageSpans(tokenIds),
    images.map(({ tokenIds: own, ...span }) => ({ name: imageName(own), ...span })),
  );
  assert.throws(() => placeImages(short, config.imageTokenId, images.slice(1)), { code: "image-count" });
});

const stages: readonly (readonly [string, string])[] = [
  ["patch_embed", "vision.patch_embed"],
  ["block0", "vision.blocks.0"],
  ["block1", "vision.blocks.1"],
  ["vision", "vision.norm"],
  ["aligner", "aligner"],
];

const bodies = kernelBodiesHere.map((body) => ({ name: body.name, create: () => body.create() }));
for (const body of [...bodies, { name: "reference", create: async () => new ReferenceDevice() }]) {
  describe(`the tower on ${body.name}`, async () => {
    const device = await withWeights<Device>(await body.create());
    after(() => device[Symbol.dispose]());
    golden.images.forEach(({ grid_hw }, i) => {
      test(`every stage of image ${i} is that of the reference`, async () => {
        const plan = planOfGrid(grid_hw);
        const blank = new Uint8Array(3 * plan.width * plan.height);
        const { sizes, inputs } = imageInputs(config, plan, blank);
        const keep = stages.map(([, label]) => label);
        const program = device.compile(recordImageEncoder(config), { limits: sizes, keep });
        await program.run({ sizes, inputs: { ...inputs, patches: recordedPatches(i) } });
        for (const [name, label] of stages) assertClose(program.read(label), stored(`image${i}.${name}`), name);
        assertSpan(program.read("rows"), i, plan);
      });
    });
  });
}

/** Start, cells and line ends, end: the rows of the aligner and the three marks. */
function assertSpan(rows: ArrayLike<number>, i: number, plan: ImagePlan): void {
  const { types } = golden.images[i]!;
  const { layout } = imageInputs(config, plan, new Uint8Array(3 * plan.width * plan.height)).inputs;
  assert.deepEqual(
    [...layout].map((entry) =>
      entry >= 0 ? 1 : { [imageMarks.start]: 0, [imageMarks.newline]: 2, [imageMarks.end]: 3 }[entry],
    ),
    types,
  );
  const width = config.textHiddenSize;
  const marks = ["image_start", "", "image_newline", "image_end"].map((name) => modelTensors.get(name)?.data);
  const cells = stored(`image${i}.aligner`);
  types.forEach((type, row) => {
    const cell = layout[row]!;
    const expected = type === 1 ? cells.subarray(cell * width, (cell + 1) * width) : marks[type]!;
    assertClose(Array.from(rows).slice(row * width, (row + 1) * width), expected, `row ${row}`);
  });
}
const modelTensors = readTensors(join(folder, "model.safetensors"));

describe("an image encoder", async () => {
  const device = await withWeights(await kernelBodiesHere.at(-1)!.create({ workers: 3 }));
  const images = new ImageEncoder(config, device);
  after(() => {
    images[Symbol.dispose]();
    device[Symbol.dispose]();
  });
  const file = new Uint8Array(readFileSync(join(import.meta.dirname, "../data/media/many-codes.gif")));

  const nativeRows = async () => {
    const native = await withWeights(await bestBody.create());
    using encoder = new ImageEncoder(config, native);
    const image = await encoder.encode(file);
    native[Symbol.dispose]();
    return image;
  };

  test("gives a row for each token of the plan, from a file as from a data: URL", async () => {
    using encoder = new ImageEncoder(config, device);
    const plan = encoder.plan(200, 150);
    const [image, same] = await Promise.all([
      encoder.encode(file),
      encoder.encode(`data:image/gif;base64,${Buffer.from(file).toString("base64")}`),
    ]);
    assert.equal(image.tokens, plan.tokens);
    assert.equal(image.rows.length, plan.tokens * config.textHiddenSize);
    assert.deepEqual(same, image);
  });

  test("gives the same bits whatever the number of threads and the images before", async () => {
    const prepared: PreparedImage = await images.prepare(file);
    const alone = await withWeights(await kernelBodiesHere.at(-1)!.create({ workers: 1 }));
    using other = new ImageEncoder(config, alone);
    await other.imageRows(
      await images.prepare(new Uint8Array(readFileSync(join(import.meta.dirname, "../data/media/rgb.png")))),
    );
    assert.deepEqual(await other.imageRows(prepared), await images.imageRows(prepared));
    alone[Symbol.dispose]();
  });

  test("gives the same bits on a device in a process of its own", async () => {
    const apart = await withWeights(await ProcessDevice.start({ device: "cpu", activations: "float32" }));
    using other = new ImageEncoder(config, apart);
    assert.deepEqual(await other.encode(file), await nativeRows());
    apart[Symbol.dispose]();
  });

  test("refuses an image that is too thin for the model", () => {
    const options = { ...releasedImagePlan, downsampleRatio: 1 };
    assert.throws(() => planImage(25_081, 55, options), { name: "MediaError", code: "image-shape" });
  });
});

/** A reader of F32, I32 and U8 tensors that shares nothing with the one under test. */
function readTensors(
  path: string,
): Map<string, { shape: readonly number[]; data: Float32Array | Int32Array | Uint8Array }> {
  const file = readFileSync(path);
  const data = 8 + Number(file.readBigUInt64LE(0));
  const header = JSON.parse(file.toString("utf8", 8, data)) as Record<
    string,
    { dtype: string; shape: number[]; data_offsets: [number, number] }
  >;
  const types = { F32: Float32Array, I32: Int32Array, U8: Uint8Array } as const;
  const tensors = Object.entries(header).filter(([name]) => name !== "__metadata__");
  return new Map(
    tensors.map(
      ([
        name,
        {
          dtype,
          shape,
          data_offsets: [begin, end],
        },
      ]) => {
        const bytes = Uint8Array.from(file.subarray(data + begin, data + end)).buffer;
        return [name, { shape, data: new types[dtype as keyof typeof types](bytes) }];
      },
    ),
  );
}

function assertClose(found: ArrayLike<number>, expected: ArrayLike<number>, what: string, most = tolerance): void {
  assert.equal(found.length, expected.length, what);
  let worst = 0;
  for (let i = 1; i < expected.length; i++) {
    if (Math.abs(found[i]! - expected[i]!) > Math.abs(found[worst]! - expected[worst]!)) worst = i;
  }
  const error = Math.abs(found[worst]! - expected[worst]!);
  assert.ok(error <= most, `${what}: element ${worst} is ${found[worst]}, expected ${expected[worst]}`);
}
